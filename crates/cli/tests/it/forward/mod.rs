//! `ringmux serve` and `ringmux forward` as their users meet them: real processes, real sockets.

mod broken;
mod browser;
mod ends;
mod http;
mod refused;
mod scraped;
mod tunnel;
