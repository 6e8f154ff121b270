"""What a picture's file says in XMP: that an algorithm made it, and in JPEG and WebP the request.

    Iptc4xmpExt:DigitalSourceType  http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia
    imagemill:request              the request as JSON

Sources: IPTC Photo Metadata Standard (Digital Source Type); IPTC's guidance for synthetic media.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from jobs.request import ImageRequest

NAMESPACE = "urn:imagemill:1"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_REQUEST, _SOURCE_TYPE = f"{{{NAMESPACE}}}request", f"{{{IPTC}}}DigitalSourceType"


class Packet(NamedTuple):
    """What an XMP packet says."""

    request: str | None = None
    """The request as JSON, where it is there."""
    source_type: str | None = None


def write_packet(request: ImageRequest | None, *, says_source: bool = True) -> bytes:
    """The packet. Equal requests give equal bytes.

    `says_source`: whether it says that an algorithm made the picture; early versions did not.
    """
    attributes = []
    if says_source:
        attributes.append(f'xmlns:Iptc4xmpExt="{IPTC}" Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"')
    if request is not None:
        # JSON has escaped the control characters already; these two are the others that XML cannot hold.
        text = request.to_json().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
        attributes.append(f'xmlns:imagemill="{NAMESPACE}" imagemill:request={quoteattr(text)}')
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" {" ".join(attributes)}/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def read_packet(packet: bytes) -> Packet:
    """What a packet says; nothing where it is no XML."""
    try:
        elements = list(ET.fromstring(packet).iter())
    except (ET.ParseError, LookupError, ValueError):  # LookupError: the encoding does not exist
        return Packet()
    said = {name: value for element in reversed(elements) for name, value in element.attrib.items()}
    return Packet(said.get(_REQUEST), said.get(_SOURCE_TYPE))
