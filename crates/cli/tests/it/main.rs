//! The program as its users meet it: arguments in, lines and exit codes out; real processes, real sockets.

mod commands;
mod deploy;
mod forward;
mod process;
