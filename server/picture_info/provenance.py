"""The statement that a picture was drawn by a trained model, in the words of the press: XMP with IPTC's source type.

Source: IPTC Photo Metadata Standard 2025.1, Digital Source Type; https://cv.iptc.org/newscodes/digitalsourcetype/.
"""

from __future__ import annotations

from typing import Final

__all__ = ["XMP"]

XMP: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
    '<?xpacket end="r"?>'
).encode()
"""The same for every picture. A packet of XMP, as a file holds it."""
