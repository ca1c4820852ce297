"""mydocker, tested on the kernel it runs on."""
