"""REST v1: how a view says what it takes and answers, and all that follows from it."""

from slapos.master.rest.model import Answer as Answer
from slapos.master.rest.model import Body as Body
from slapos.master.rest.model import Query as Query
from slapos.master.rest.model import Time as Time
from slapos.master.rest.operation import Described as Described
from slapos.master.rest.operation import Reply as Reply
from slapos.master.rest.operation import operation as operation
from slapos.master.rest.paging import Page as Page
from slapos.master.rest.paging import Paged as Paged
from slapos.master.rest.paging import PagedQuery as PagedQuery
from slapos.master.rest.paging import page as page
from slapos.master.rest.tags import check_match as check_match
