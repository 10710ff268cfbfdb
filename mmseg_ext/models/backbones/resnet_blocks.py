"""The two residual blocks of ResNet (He et al., arXiv:1512.03385, figures 2 and 5), with mmseg's state-dict keys."""

from mmcv.cnn import build_conv_layer, build_norm_layer, build_plugin_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg_ext.layers import PointwiseConv2d, Unit

_PLUGIN_POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')


def build_pointwise_conv(conv_cfg: dict | None, in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Build a 1x1 convolution without bias."""
    if conv_cfg is None:
        return PointwiseConv2d(in_channels, out_channels, stride, bias=False)
    return build_conv_layer(conv_cfg, in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


class ResidualBlock(BaseModule):
    """What the two kinds of block share: shortcut, checkpointing, normalisation layers under mmcv's names.

    A subclass builds its layers in ``__init__``, computes ``residual(x)`` and lists the spatial layers in it.
    """

    expansion: int
    last_norm: str
    downsample: nn.Module | None  # set behind the other layers: optimizer states of mmseg count on the order

    def __init__(
        self,
        with_cp: bool,
        norm_cfg: dict,
        drop_path_rate: float,
        init_cfg: dict | None,
    ):
        super().__init__(init_cfg)
        self.norm_cfg = norm_cfg
        self.with_cp = with_cp
        self.relu = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def add_norm(self, channels: int, index: int) -> None:
        """Add a normalisation layer as ``bn1``, ``gn1``, ...; its name stays in ``norm1_name``."""
        name, layer = build_norm_layer(self.norm_cfg, channels, postfix=index)
        self.add_module(name, layer)
        setattr(self, f'norm{index}_name', name)

    @property
    def norm1(self) -> nn.Module:
        return getattr(self, self.norm1_name)

    @property
    def norm2(self) -> nn.Module:
        return getattr(self, self.norm2_name)

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def spatial_layers(self) -> list[nn.Module]:
        """Layers of the main path with a kernel larger than one or a stride, in order."""
        raise NotImplementedError

    @property
    def strided_layer(self) -> nn.Module:
        """The one of them that carries the stride."""
        return self.spatial_layers()[0]

    def unit(self, removed: int = 1) -> Unit:
        """Describe the block for a change of output stride; ``removed`` is the stride it was built without."""
        main = self.spatial_layers()
        branches, strided = [main], [[layer is self.strided_layer for layer in main].index(True)]
        if self.downsample is not None:
            # Average pooling carries the shortcut's stride where there is one, else the 1x1 convolution.
            branches.append([self.downsample[0]])
            strided.append(0)
        return Unit(branches, strided, removed)

    def _sum(self, x: Tensor) -> Tensor:
        out = self.drop_path(self.residual(x))
        out += x if self.downsample is None else self.downsample(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return self.relu(checkpoint(self._sum, x, use_reentrant=False))
        return self.relu(self._sum(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions: the block of ResNet-18 and -34."""

    expansion = 1
    last_norm = 'norm2'

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
        style: str = 'pytorch',
        with_cp: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        dcn: dict | None = None,
        plugins: list[dict] | None = None,
        drop_path_rate: float = 0.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(with_cp, norm_cfg, drop_path_rate, init_cfg)
        if dcn is not None or plugins is not None:
            raise ValueError('dcn and plugins need bottleneck blocks: use depth 50, 101 or 152, or leave them out')
        self.conv1 = build_conv_layer(
            conv_cfg, inplanes, planes, 3, stride=stride, padding=dilation, dilation=dilation,
            bias=False,
        )  # fmt: skip
        self.add_norm(planes, 1)
        # mmseg's `dilations` never dilate the second convolution; a change of output stride does.
        self.conv2 = build_conv_layer(conv_cfg, planes, planes, 3, padding=1, bias=False)
        self.add_norm(planes, 2)
        self.downsample = downsample

    def spatial_layers(self) -> list[nn.Module]:
        return [self.conv1, self.conv2]

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution: the block of ResNet-50, -101 and -152.

    The stride sits in the 3x3 convolution (``style='pytorch'``) or in the first 1x1 convolution (``'caffe'``).
    """

    expansion = 4
    last_norm = 'norm3'

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
        style: str = 'pytorch',
        with_cp: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        dcn: dict | None = None,
        plugins: list[dict] | None = None,
        drop_path_rate: float = 0.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(with_cp, norm_cfg, drop_path_rate, init_cfg)
        if style not in ('pytorch', 'caffe'):
            raise ValueError(f"style={style!r} must be 'pytorch' or 'caffe'")
        self.style = style
        stride1, stride2 = (1, stride) if style == 'pytorch' else (stride, 1)
        width = self.inner_width(planes)
        self.conv1 = build_pointwise_conv(conv_cfg, inplanes, width, stride1)
        self.add_norm(width, 1)
        conv2_cfg = conv_cfg
        if dcn is not None:
            dcn = dict(dcn)
            if not dcn.pop('fallback_on_stride', False):
                if conv_cfg is not None:
                    raise ValueError(f'conv_cfg={conv_cfg} and dcn={dcn} both choose the 3x3 convolution: drop one')
                conv2_cfg = dcn
        self.add_conv2(conv2_cfg, width, stride2, dilation)
        self.conv3 = build_pointwise_conv(conv_cfg, width, planes * self.expansion)
        self.add_norm(planes * self.expansion, 3)
        self.downsample = downsample
        channels = dict(after_conv1=width, after_conv2=width, after_conv3=planes * self.expansion)
        self.plugin_names = {position: [] for position in _PLUGIN_POSITIONS}
        for plugin in plugins or []:
            self._add_plugin(plugin['cfg'], plugin['position'], channels)

    def inner_width(self, planes: int) -> int:
        """Channels between the 1x1 convolutions."""
        return planes

    def add_conv2(self, conv_cfg: dict | None, width: int, stride: int, dilation: int) -> None:
        """Add the 3x3 convolution and its normalisation."""
        self.conv2 = build_conv_layer(
            conv_cfg, width, width, kernel_size=3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.add_norm(width, 2)

    def _add_plugin(self, cfg: dict, position: str, channels: dict[str, int]) -> None:
        if position not in channels:
            raise ValueError(f'plugin {cfg}: position={position!r} must be one of {_PLUGIN_POSITIONS}')
        cfg = dict(cfg)
        name, layer = build_plugin_layer(cfg, in_channels=channels[position], postfix=cfg.pop('postfix', ''))
        if hasattr(self, name):
            raise ValueError(f'two plugins of a block are both called {name!r}: give each a `postfix` of its own')
        self.add_module(name, layer)
        self.plugin_names[position].append(name)

    @property
    def norm3(self) -> nn.Module:
        return getattr(self, self.norm3_name)

    def _plugins(self, x: Tensor, position: str) -> Tensor:
        # mmseg feeds every plugin of a position the same input and keeps the last one's output; so do we, for its
        # checkpoints.
        out = x
        for name in self.plugin_names[position]:
            out = getattr(self, name)(x)
        return out

    def spatial_layers(self) -> list[nn.Module]:
        return [self.conv2] if self.style == 'pytorch' else [self.conv1, self.conv2]

    def residual(self, x: Tensor) -> Tensor:
        x = self._plugins(self.relu(self.norm1(self.conv1(x))), 'after_conv1')
        x = self._plugins(self.relu(self.norm2(self.conv2(x))), 'after_conv2')
        return self._plugins(self.norm3(self.conv3(x)), 'after_conv3')
