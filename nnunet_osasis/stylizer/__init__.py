"""The trained stylizer: read-outs, the folder on disk, gated use, folders of images."""
