"""Where the target layers are in a base model's networks."""

from torch import nn

from hyperdreambooth.layers import text_layer_name, unet_layer_name

TargetLayer = nn.Linear | nn.Conv2d


def target_layers(unet: nn.Module, text_encoder: nn.Module) -> dict[str, TargetLayer]:
    """What can get a LiDB, by our names: on SD 1.5 172 layers in the UNet, 44 of them convolutions, and 72 in the text
    encoder. Which of them do is the layer table's to say.
    """
    targets: dict[str, TargetLayer] = {}
    for network, layer_name in ((unet, unet_layer_name), (text_encoder, text_layer_name)):
        for module_name, module in network.named_modules():
            name = layer_name(module_name)
            if name is not None:
                assert isinstance(module, TargetLayer), module_name
                targets[name] = module
    return targets
