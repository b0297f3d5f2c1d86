"""The handlers that TorchServe brings, as far as they need no package but torch, torchvision and pillow."""
