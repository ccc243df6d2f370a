"""What a merged bracket becomes on disk: encoded, with its provenance inside, published whole."""

from asi_watch.products.embed import find_provenance, read_provenance
from asi_watch.products.encode import encode, encode_merge
from asi_watch.products.provenance import Provenance, ProvenanceError, Source, Unusable
from asi_watch.products.publish import OutputFolder, is_temporary
from asi_watch.products.radiance import RadianceLayers
from asi_watch.products.spec import ProductSpec

__all__ = [
    "OutputFolder",
    "ProductSpec",
    "Provenance",
    "ProvenanceError",
    "RadianceLayers",
    "Source",
    "Unusable",
    "encode",
    "encode_merge",
    "find_provenance",
    "is_temporary",
    "read_provenance",
]
