from .channels_last_hook import ChannelsLastHook
from .checkpoint_hook import CheckpointHook
from .curves_hook import CurvesHook
from .dataset_check_hook import DatasetCheckHook
from .finite_weights_hook import FiniteWeightsHook
from .panel_hook import PanelHook
from .progress_hook import ProgressHook
from .training_state_hook import TrainingStateHook

__all__ = [
    'ChannelsLastHook',
    'CheckpointHook',
    'CurvesHook',
    'DatasetCheckHook',
    'FiniteWeightsHook',
    'PanelHook',
    'ProgressHook',
    'TrainingStateHook',
]
