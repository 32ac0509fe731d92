"""The tables of nftables that the kernel has, by netlink: the program nft reads all rules first."""

#: The family `inet`, for IPv4 and IPv6.
INET = 1


def kernel_tables() -> set[str]:
    """Return the names of the tables of the family `inet`. Raises OSError."""
    # Slow to import, and 13 MB in a resident agent: not where there is no firewall.
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415
    from pyroute2.nftables.main import NFTables  # noqa: PLC0415

    try:
        with NFTables(nfgen_family=INET) as connection:
            return {str(table.get_attr("NFTA_TABLE_NAME")) for table in connection.get_tables()}
    except NetlinkError as error:
        raise OSError(error.code, f"the kernel does not tell its nftables: {error}") from error
