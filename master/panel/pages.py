"""All pages: importing their modules gives the blueprint its views."""

from slapos.master.panel import account as _account
from slapos.master.panel.views import blueprint as blueprint

MODULES = (_account,)
