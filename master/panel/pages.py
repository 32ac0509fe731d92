"""All pages: importing their modules gives the blueprint its views."""

from slapos.master.panel import account as _account
from slapos.master.panel import views as _views

MODULES = (_views, _account)
blueprint = _views.blueprint
