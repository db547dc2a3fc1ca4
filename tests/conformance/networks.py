"""Each family of networks, cut down to what two cores train in a moment."""

from __future__ import annotations

from torch import nn


def residual(classes: int, channels: int) -> nn.Module:
    from kdsearch.models import build
    from kdsearch.settings import NetworkSettings

    return build(NetworkSettings(name="resnet8"), outputs=classes, channels=channels, size=(32, 32))


def vgg(classes: int, channels: int) -> nn.Module:
    from torchvision.models import vgg

    layers: list[str | int] = [8, "M", 16, "M", 32, "M"]
    network = vgg.VGG(vgg.make_layers(layers, batch_norm=True), num_classes=classes)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, classes))
    return network


def shufflenet(classes: int, channels: int) -> nn.Module:
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([1, 1, 1], [8, 16, 32, 48, 64], num_classes=classes)


def mobilenet(classes: int, channels: int) -> nn.Module:
    from torchvision.models import MobileNetV2

    layers = [[1, 8, 1, 1], [6, 8, 1, 2], [6, 16, 1, 2], [6, 24, 1, 2]]
    return MobileNetV2(num_classes=classes, inverted_residual_setting=layers, width_mult=0.5)


def vit(classes: int, channels: int) -> nn.Module:
    from timm.models import VisionTransformer

    return VisionTransformer(
        img_size=32, patch_size=8, in_chans=channels, num_classes=classes, embed_dim=24, depth=4, num_heads=2
    )


def mvit(classes: int, channels: int) -> nn.Module:
    from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

    config = MultiScaleVitCfg(depths=(1, 1, 1), embed_dim=16, num_heads=1)
    return MultiScaleVit(config, img_size=32, in_chans=channels, num_classes=classes)
