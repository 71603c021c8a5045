"""Compressors (stage one): images to codes and back."""

from genstack.compressor.autoencoder import Autoencoder
from genstack.compressor.bottleneck import Bottleneck, BottleneckOutput, Quantized, Quantizer
from genstack.compressor.compressor import Compressor, Reconstruction
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.hierarchical import HierarchicalAutoencoder
from genstack.compressor.network import Decoder, Encoder, Network
from genstack.compressor.networks.convolutional import Convolutional
from genstack.compressor.networks.dvae import DVAE
from genstack.compressor.networks.magvit import MAGVITNetwork
from genstack.compressor.networks.maskgit import MaskGITNetwork
from genstack.compressor.networks.strided import Strided
from genstack.compressor.networks.titok import TiTok
from genstack.compressor.networks.vit import ViT

__all__ = [
    "DVAE",
    "Autoencoder",
    "Bottleneck",
    "BottleneckOutput",
    "Compressor",
    "Convolutional",
    "Decoder",
    "Encoder",
    "Gaussian",
    "HierarchicalAutoencoder",
    "MAGVITNetwork",
    "MaskGITNetwork",
    "Network",
    "Quantized",
    "Quantizer",
    "Reconstruction",
    "Strided",
    "TiTok",
    "ViT",
]
