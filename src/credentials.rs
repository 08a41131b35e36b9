//! Opening the credentials of a device.
