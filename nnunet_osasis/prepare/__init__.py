"""Public datasets and folders of images and masks, brought into nnU-Net's raw format."""
