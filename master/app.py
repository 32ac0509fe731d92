"""The master's one place of assembly."""

from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from slapos.master import http, migrations
from slapos.master.audit import views as audit
from slapos.master.audit.recording import record_changes
from slapos.master.catalog import product_views as products
from slapos.master.catalog import supply_views as supplies
from slapos.master.catalog import views as catalog
from slapos.master.certificates import views as certificates
from slapos.master.certificates.authorities import PURPOSE
from slapos.master.certificates.front import FRONT, Front
from slapos.master.certificates.showing import authenticate as by_what_is_shown
from slapos.master.certificates.views import BOX
from slapos.master.database import open_database
from slapos.master.feed import views as feed
from slapos.master.health import blueprint as health
from slapos.master.identity import project_views as projects
from slapos.master.identity import views as people
from slapos.master.identity.caller import LOCAL
from slapos.master.identity.secret_box import SecretBox
from slapos.master.mail.outbox import notices
from slapos.master.monitoring import views as monitoring
from slapos.master.nodes import network_views as networks
from slapos.master.nodes import service as node_service
from slapos.master.nodes import views as nodes
from slapos.master.nodes.exchange import count_exchanges
from slapos.master.nodes.notifier import announcer_of
from slapos.master.numbering import keep_numbers
from slapos.master.panel.openid import OPENID, openid_dialogue
from slapos.master.panel.pages import blueprint as panel_blueprint
from slapos.master.provisioning import full_views as services
from slapos.master.provisioning import views as provisioning
from slapos.master.provisioning.full_policy import FullPolicy
from slapos.master.provisioning.local_releases import follow_local_releases
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.remote import views as remote_nodes
from slapos.master.rest import views as rest
from slapos.master.routes import Route
from slapos.master.secret_file import read_secret
from slapos.master.settings import Profile, Settings
from slapos.master.slap import hateoas, http_proxy, json_rpc, key_delivery, slap_tool
from slapos.master.slap.asking import ASKING, FullAsking, LocalAsking
from slapos.master.slap.fast_lane import FAST_LANE, FastLane, KeptAnswers
from slapos.master.slap.full_lane import FullLane
from slapos.master.slap.keeping import KEPT_ANSWERS
from slapos.master.slap.node_view import NODE_VIEWS, NodeViews
from slapos.master.tasks import views as tasks
from slapos.master.traffic import frame
from slapos.master.traffic.metrics import Metrics
from slapos.master.traffic.refused import Refusals
from slapos.master.webhooks import views as webhooks
from slapos.master.webhooks.outbox import put
from slapos.system.clock import Clock, SystemClock
from slapos.system.identifier import Identifiers, SystemIdentifiers
from slapos.system.settings import environment

#: Connections that the web server has beside those of its threads: the fast lane, the change feed,
#: what is told to other masters.
CONNECTIONS = 5


def create_app(
    settings: Settings,
    clock: Clock | None = None,
    identifiers: Identifiers | None = None,
    authenticate: http.Authenticate | None = None,
) -> Flask:
    """Return the web application; its database is brought to this version's schema first.

    `authenticate` says who asks; without it the profile does.
    """
    app = Flask(__name__, static_folder=None)
    app.url_rule_class = Route
    clock, identifiers = clock or SystemClock(), identifiers or SystemIdentifiers()
    is_local = settings.profile is Profile.LOCAL
    database = open_database(
        settings.database_url,
        threads=settings.threads + CONNECTIONS,
        caller=LOCAL if is_local else None,
    )
    if is_local:
        migrations.upgrade(database)
    else:
        migrations.check(database, remedy=migrations.MASTER_REMEDY)
    keep_numbers(database.writing)
    announcer = announcer_of(database)
    count_exchanges(database.writing, identifiers, announcer)
    if not is_local:
        record_changes(database.writing, clock, put, notices(settings, clock))
    limits = frame.limits_of(settings, clock)
    parts = http.Assembly(
        database=database,
        clock=clock,
        identifiers=identifiers,
        policy=LocalPolicy(settings.default_node, settings.supply_on_request)
        if is_local
        else FullPolicy(identifiers),
        settings=settings,
        announcer=announcer,
        authenticate=frame.surrounded(
            authenticate or (http.everybody_is_local if is_local else by_what_is_shown), limits
        ),
        note=None if is_local else Refusals(clock).note,
    )
    if is_local:
        with app.app_context():
            # Another master may start on this database at the same moment.
            http.until_undisturbed(parts, lambda: _prepare(app, parts))
    for blueprint in (
        slap_tool.blueprint,
        json_rpc.blueprint,
        hateoas.blueprint,
        http_proxy.blueprint,
        nodes.blueprint,
        networks.blueprint,
        catalog.blueprint,
        products.blueprint,
        supplies.blueprint,
        provisioning.blueprint,
        tasks.blueprint,
        monitoring.blueprint,
        feed.blueprint,
        certificates.blueprint,
        rest.blueprint,
        audit.blueprint,
        webhooks.blueprint,
        health,
    ):
        app.register_blueprint(blueprint)
    app.extensions[OPENID] = openid_dialogue(settings, clock)
    if not is_local:
        for blueprint in (
            people.blueprint,
            projects.blueprint,
            services.blueprint,
            key_delivery.blueprint,
            remote_nodes.blueprint,
            panel_blueprint,
        ):
            app.register_blueprint(blueprint)
    app.extensions[ASKING] = LocalAsking() if is_local else FullAsking()
    views, answers = NodeViews(), KeptAnswers()
    app.extensions[NODE_VIEWS] = views
    app.extensions[KEPT_ANSWERS] = answers
    http.init_app(app, parts)
    beside = frame.init_app(app, parts, Metrics(environment()))
    front: Any
    if is_local:
        # Behind a web server that speaks TLS, our own URLs begin as the client's did.
        proxied = ProxyFix(app.wsgi_app, x_for=0, x_proto=1, x_prefix=1)
        # It does not ask who asks.
        front = app.extensions[FAST_LANE] = FastLane(proxied, database, views, answers)
    else:
        lane = app.extensions[FAST_LANE] = FullLane(
            app.wsgi_app, database.glancing, clock, views, answers, limits, beside
        )
        front = app.extensions[FRONT] = Front(lane, settings.trusted_proxies)
        if settings.secret_file is not None:
            app.extensions[BOX] = SecretBox(read_secret(settings.secret_file), PURPOSE)
    app.wsgi_app = front  # type: ignore[method-assign]
    return app


def _prepare(app: Flask, parts: http.Assembly) -> None:
    """Have in the database what the settings say."""
    root = parts.settings.local_release_root
    with parts.database.writing.begin() as session:
        node_service.ensure_node(session, parts.clock, parts.settings.default_node)
        for url in follow_local_releases(session, parts.clock, root):
            app.logger.warning("the release %s is now looked for in %s", url, root)
