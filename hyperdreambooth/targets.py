"""Where the target layers are in a base model's networks."""

from torch import nn

from hyperdreambooth.layers import text_layer_name, unet_layer_name


def target_layers(unet: nn.Module, text_encoder: nn.Module) -> dict[str, nn.Linear]:
    """The linears that get a LiDB, by our names: on SD 1.5 128 in the UNet and 72 in the text encoder."""
    targets: dict[str, nn.Linear] = {}
    for network, layer_name in ((unet, unet_layer_name), (text_encoder, text_layer_name)):
        for module_name, module in network.named_modules():
            name = layer_name(module_name)
            if name is not None:
                assert isinstance(module, nn.Linear), module_name
                targets[name] = module
    return targets
