"""The published families, cut down and built from the libraries' own classes: `tiny_networks.py:vgg` and so on."""

from __future__ import annotations

from collections import OrderedDict

from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.vgg import make_layers


def vgg(classes, channels):
    """VGG-11's layers; one layer in place of its classifier of a hundred million weights."""
    features = make_layers([8, "M", 16, "M", 24, 24, "M", 32, 32, "M", 32, 32, "M"], batch_norm=True)
    features[0] = nn.Conv2d(channels, 8, 3, padding=1)
    parts = {"features": features, "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(parts, classifier=nn.Linear(32, classes)))


def shufflenet_v2(classes, channels):
    network = ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 96], num_classes=classes)
    network.conv1[0] = nn.Conv2d(channels, 8, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def mobilenet_v2(classes, channels):
    settings = [[1, 8, 1, 1], [6, 8, 2, 2], [6, 16, 2, 2], [6, 24, 2, 2]]
    network = MobileNetV2(num_classes=classes, width_mult=0.5, inverted_residual_setting=settings)
    network.features[0][0] = nn.Conv2d(channels, 16, 3, stride=1, padding=1, bias=False)
    return network


def resnet(classes, channels):
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes, width_per_group=64)
    network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return network


def vit(classes, channels, size, depth=6):
    return VisionTransformer(
        img_size=size, patch_size=8, in_chans=channels, num_classes=classes, embed_dim=24, depth=depth, num_heads=2
    )


def mvit_v2(classes, channels, size, class_token=False):
    plan = MultiScaleVitCfg(depths=(1, 1, 2, 1), embed_dim=8, num_heads=1, use_cls_token=class_token)
    return MultiScaleVit(plan, img_size=size, in_chans=channels, num_classes=classes)
