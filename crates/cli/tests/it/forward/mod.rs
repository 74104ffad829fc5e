//! `ringmux serve` and `ringmux forward` as their users run them: real processes, real sockets.

mod backlog;
mod broken;
mod browser;
mod ends;
mod flooded;
mod full;
mod http;
mod late;
mod names;
mod passed;
mod refused;
mod scraped;
mod tunnel;
mod unlogged;
