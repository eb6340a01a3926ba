"""From runs to files for the device: formats, int8 that is chosen, and a table of their scores."""

from limbeck.shipping.own import OwnModel
from limbeck.shipping.shipment import ship

__all__ = ["OwnModel", "ship"]
