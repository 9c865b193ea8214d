"""Which addresses may be told things: those that anybody could reach, and so nothing that only we can reach."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Reachable from anywhere; also looked for inside IPv6's wrappings of IPv4."""
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if wrapped:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast
