//! The SSH client: dial, compare the host key, log in, run commands. SSH, not RouterOS.
