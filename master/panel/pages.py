"""All pages: importing their modules gives the blueprint its views."""

from slapos.master.panel import account as _account
from slapos.master.panel import openid as _openid
from slapos.master.panel import views as _views

MODULES = (_views, _account, _openid)
blueprint = _views.blueprint
