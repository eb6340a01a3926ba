"""The networks of the recipes: functions `name(*, input_shape, classes, **options) -> nn.Module`."""
