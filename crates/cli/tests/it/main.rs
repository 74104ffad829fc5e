//! The program as its users run it: arguments in, lines and exit codes out; real processes, real sockets.

mod commands;
mod deploy;
mod forward;
mod process;
