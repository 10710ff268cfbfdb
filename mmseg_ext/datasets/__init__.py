from .camvid import CamVid32Dataset, CamVidDataset

__all__ = ['CamVid32Dataset', 'CamVidDataset']
