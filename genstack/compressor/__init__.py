"""Stage one: images to codes and back."""

from genstack.compressor.autoencoder import Autoencoder
from genstack.compressor.bottleneck import Bottleneck, Bottlenecked, Quantized, Quantizer
from genstack.compressor.compressor import Compressor, Reconstruction
from genstack.compressor.convolutional import Convolutional
from genstack.compressor.network import Decoder, Encoder, Network
from genstack.compressor.titok import TiTok
from genstack.compressor.vit import ViT

__all__ = [
    "Autoencoder",
    "Bottleneck",
    "Bottlenecked",
    "Compressor",
    "Convolutional",
    "Decoder",
    "Encoder",
    "Network",
    "Quantized",
    "Quantizer",
    "Reconstruction",
    "TiTok",
    "ViT",
]
