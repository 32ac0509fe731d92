"""Every mapped class in one place, so that the metadata is whole."""

from slapos.master import numbering as _numbering
from slapos.master.audit import model as _audit
from slapos.master.catalog import model as _catalog
from slapos.master.certificates import model as _certificates
from slapos.master.database import Base
from slapos.master.identity import credentials as _credentials
from slapos.master.identity import model as _identity
from slapos.master.mail import model as _mail
from slapos.master.monitoring import model as _monitoring
from slapos.master.nodes import model as _nodes
from slapos.master.provisioning import model as _provisioning
from slapos.master.remote import model as _remote
from slapos.master.rest import kept_answer as _kept_answer
from slapos.master.tasks import model as _tasks
from slapos.master.webhooks import model as _webhooks

ROOMS = (
    _numbering,
    _identity,
    _credentials,
    _nodes,
    _catalog,
    _provisioning,
    _tasks,
    _kept_answer,
    _audit,
    _monitoring,
    _webhooks,
    _mail,
    _certificates,
    _remote,
)
metadata = Base.metadata
