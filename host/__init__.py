"""What a person uses: the `rbonn` command, the driver of the accelerator, images and reports."""
