"""`noodle bench chaos`: three hosts that are asked all the time while their parts are killed, frozen and cut off."""
