from .camvid import CamVid32Dataset, CamVidDataset
from .config_check import check_config
from .dataset_problems import DatasetError
from .scan import DatasetScan, scan_dataset

__all__ = ['CamVid32Dataset', 'CamVidDataset', 'DatasetError', 'DatasetScan', 'check_config', 'scan_dataset']
