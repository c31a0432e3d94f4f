"""Convert public datasets and folders of images and masks to nnU-Net's raw format."""
