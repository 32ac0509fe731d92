"""Projects and their people, the catalogue, and to whom nodes and instance trees belong."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

#: Any time will do: the local master's project was always there.
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    """Make the tables; what is there belongs to the local master's project and its person."""
    # 1 is the local master's person and project.
    op.create_table(
        "reference_numbers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reference_numbers")),
        sqlite_autoincrement=True,
    )
    op.execute("INSERT INTO reference_numbers (id) VALUES (1)")
    _make_people()
    _make_local_tenant()
    _make_networks_and_categories()
    _make_catalogue()
    _have_nodes_belong()
    _have_trees_belong()
    _add_reasons()


def _make_people() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=40), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("country", sa.String(length=2), nullable=True),
        sa.Column("vat_code", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
        sa.UniqueConstraint("reference", name=op.f("uq_organisations_reference")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "persons",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=40), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_persons")),
        sa.UniqueConstraint("email", name=op.f("uq_persons_email")),
        sa.UniqueConstraint("reference", name=op.f("uq_persons_reference")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=40), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("organisation_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name=op.f("fk_projects_organisation_id")
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["persons.id"], name=op.f("fk_projects_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("reference", name=op.f("uq_projects_reference")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_projects_owner_id"), "projects", ["owner_id"], unique=False)
    op.create_table(
        "memberships",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["persons.id"], name=op.f("fk_memberships_person_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_memberships_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memberships")),
        sa.UniqueConstraint(
            "person_id", "project_id", "role", name=op.f("uq_memberships_person_id_project_id_role")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_memberships_everywhere",
        "memberships",
        ["person_id", "role"],
        unique=True,
        sqlite_where=sa.text("project_id IS NULL"),
        postgresql_where=sa.text("project_id IS NULL"),
    )
    op.create_index(op.f("ix_memberships_project_id"), "memberships", ["project_id"], unique=False)


def _make_local_tenant() -> None:
    persons = sa.table(
        "persons", *map(sa.column, ("id", "reference", "name", "state", "created_at"))
    )
    projects = sa.table(
        "projects",
        *map(sa.column, ("id", "reference", "title", "state", "owner_id", "created_at")),
    )
    begin = sa.bindparam("created_at", BEGINNING, sa.DateTime(timezone=True))
    op.execute(
        persons.insert().values(
            id=1, reference="P-1", name="local", state="active", created_at=begin
        )
    )
    op.execute(
        projects.insert().values(
            id=1, reference="PROJ-1", title="local", state="active", owner_id=1, created_at=begin
        )
    )
    if op.get_bind().dialect.name == "postgresql":
        for table in ("reference_numbers", "persons", "projects"):
            op.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1)")


def _make_networks_and_categories() -> None:
    op.create_table(
        "computer_networks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_computer_networks_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_computer_networks")),
        sa.UniqueConstraint(
            "project_id", "title", name=op.f("uq_computer_networks_project_id_title")
        ),
        sa.UniqueConstraint("reference", name=op.f("uq_computer_networks_reference")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "node_categories",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("value", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_node_categories_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("node_id", "name", name=op.f("pk_node_categories")),
    )
    op.create_index(
        op.f("ix_node_categories_name_value"), "node_categories", ["name", "value"], unique=False
    )


def _make_catalogue() -> None:
    op.create_table(
        "allocation_supplies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("customer_id", sa.Integer(), nullable=True),
        sa.Column("shared_in_same_tree", sa.Boolean(), nullable=False),
        sa.Column("installs_by_need", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["persons.id"], name=op.f("fk_allocation_supplies_customer_id")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_allocation_supplies_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_allocation_supplies")),
        sa.UniqueConstraint("reference", name=op.f("uq_allocation_supplies_reference")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_allocation_supplies_project_id"),
        "allocation_supplies",
        ["project_id"],
        unique=False,
    )
    op.create_table(
        "software_products",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_software_products_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_software_products")),
        sa.UniqueConstraint(
            "project_id", "title", name=op.f("uq_software_products_project_id_title")
        ),
        sa.UniqueConstraint("reference", name=op.f("uq_software_products_reference")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "software_releases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.Integer(), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("schema_url", sa.String(length=2000), nullable=True),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["software_products.id"],
            name=op.f("fk_software_releases_product_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_software_releases")),
        sa.UniqueConstraint("product_id", "url", name=op.f("uq_software_releases_product_id_url")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_software_releases_url"), "software_releases", ["url"], unique=False)
    op.create_table(
        "software_types",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("parameter_schema", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["software_products.id"],
            name=op.f("fk_software_types_product_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_software_types")),
        sa.UniqueConstraint("product_id", "name", name=op.f("uq_software_types_product_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "supply_cells",
        sa.Column("supply_id", sa.Integer(), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("type_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["release_id"],
            ["software_releases.id"],
            name=op.f("fk_supply_cells_release_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["supply_id"],
            ["allocation_supplies.id"],
            name=op.f("fk_supply_cells_supply_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["type_id"],
            ["software_types.id"],
            name=op.f("fk_supply_cells_type_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("supply_id", "release_id", "type_id", name=op.f("pk_supply_cells")),
    )
    op.create_index(
        op.f("ix_supply_cells_release_id_type_id"),
        "supply_cells",
        ["release_id", "type_id"],
        unique=False,
    )
    op.create_table(
        "supply_nodes",
        sa.Column("supply_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_supply_nodes_node_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["supply_id"],
            ["allocation_supplies.id"],
            name=op.f("fk_supply_nodes_supply_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("supply_id", "node_id", name=op.f("pk_supply_nodes")),
    )
    op.create_index(op.f("ix_supply_nodes_node_id"), "supply_nodes", ["node_id"], unique=False)


def _have_nodes_belong() -> None:
    with op.batch_alter_table("compute_nodes") as batch:
        batch.add_column(sa.Column("project_id", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(
            sa.Column(
                "allocation_scope", sa.String(length=30), nullable=False, server_default="open"
            )
        )
        batch.add_column(sa.Column("capacity", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("network_id", sa.Integer(), nullable=True))
        batch.create_foreign_key(
            op.f("fk_compute_nodes_network_id"), "computer_networks", ["network_id"], ["id"]
        )
        batch.create_foreign_key(
            op.f("fk_compute_nodes_project_id"), "projects", ["project_id"], ["id"]
        )
        batch.create_index(op.f("ix_compute_nodes_network_id"), ["network_id"])
        batch.create_index(op.f("ix_compute_nodes_project_id_title"), ["project_id", "title"])


def _have_trees_belong() -> None:
    with op.batch_alter_table(
        "instance_trees", table_kwargs={"sqlite_autoincrement": True}
    ) as batch:
        batch.add_column(sa.Column("reference", sa.String(length=440), nullable=True))
        batch.add_column(sa.Column("project_id", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("owner_id", sa.Integer(), nullable=False, server_default="1"))
        batch.drop_constraint(op.f("uq_instance_trees_title_shared"), type_="unique")
        batch.create_unique_constraint(
            op.f("uq_instance_trees_project_id_owner_id_title_shared"),
            ["project_id", "owner_id", "title", "shared"],
        )
        batch.create_unique_constraint(op.f("uq_instance_trees_reference"), ["reference"])
        batch.create_foreign_key(
            op.f("fk_instance_trees_owner_id"), "persons", ["owner_id"], ["id"]
        )
        batch.create_foreign_key(
            op.f("fk_instance_trees_project_id"), "projects", ["project_id"], ["id"]
        )
        batch.create_index(op.f("ix_instance_trees_owner_id"), ["owner_id"])


def _add_reasons() -> None:
    op.add_column(
        "software_instances",
        sa.Column("waiting_code", sa.String(length=40), server_default="", nullable=False),
    )
    op.add_column(
        "software_instances",
        sa.Column("waiting_reason", sa.Text(), server_default="", nullable=False),
    )
    op.add_column(
        "software_instances", sa.Column("orphaned_at", sa.DateTime(timezone=True), nullable=True)
    )
