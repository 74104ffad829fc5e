//! Clients and servers for ringmux from `.proto` files, in a build script and without protoc.
//!
//! ```no_run
//! // build.rs: `package bank.v1` in proto/bank.proto becomes bank.v1.rs in OUT_DIR.
//! fn main() -> Result<(), ringmux_build::Error> {
//!     ringmux_build::compile(&["bank.proto"], &["proto"])
//! }
//! ```
//! ```ignore
//! mod bank {
//!     include!(concat!(env!("OUT_DIR"), "/bank.v1.rs"));
//! }
//! use bank::{Bank, BankClient, BankServer};
//! ```
//! Messages are types of prost. Each service becomes a trait with the attribute `ringmux::service` and `codec = "prost"`: what
//! is made of it is written there. The package needs `prost` and, for the types of `google/protobuf`, `prost-types` as dependencies, and
//! ringmux with the feature `rpc-prost`.
//!
//! A method `New`, `Channel`, `Clone`, `Into` or `TryInto` becomes `new_`, `channel_` and so on, for clients have functions of these names. So does a method
//! whose name is that of one before it in Rust, as of `GetAll` and `get_all`, and a type of a service whose name is a message's: beside a
//! message `BankClient` the client of the service `Bank` is `BankClient_`.
//! Fields of type `bytes` become `Bytes`; see [`Builder::prost`] for another type.

mod error;
mod generate;
mod names;

use std::path::{Path, PathBuf};

pub use error::Error;
pub use prost_build;

use generate::Services;

/// Compiles files with the defaults; see [`Builder::compile`].
///
/// # Errors
/// As [`Builder::compile`].
pub fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    Builder::new().compile(protos, includes)
}

/// Sets what is not the default, and compiles.
///
/// # Examples
/// ```no_run
/// # fn main() -> Result<(), ringmux_build::Error> {
/// ringmux_build::Builder::new()
///     .prost(|config| {
///         config.type_attribute(".", "#[derive(serde::Serialize)]");
///     })
///     .compile(&["bank.proto"], &["proto"])
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    config: prost_build::Config,
    library: String,
    descriptors: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Starts from the defaults.
    pub fn new() -> Self {
        let mut config = prost_build::Config::new();
        config.bytes(["."]);
        Self {
            config,
            library: "::ringmux".to_owned(),
            descriptors: None,
        }
    }

    /// Where files are written. Default: `OUT_DIR`, which cargo sets for a build script.
    pub fn out_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.out_dir(path);
        self
    }

    /// Sets anything of prost's code: attributes, types of maps and bytes, paths of types that exist.
    ///
    /// A generator of services that is set here is replaced.
    pub fn prost(mut self, set: impl FnOnce(&mut prost_build::Config)) -> Self {
        set(&mut self.config);
        self
    }

    /// Where the code that is made finds ringmux. Default: `::ringmux`.
    pub fn library(mut self, path: impl Into<String>) -> Self {
        self.library = path.into();
        self
    }

    /// Also writes an encoded `FileDescriptorSet` to this file, imports included: for reflection. Default: none.
    pub fn descriptors(mut self, file: impl Into<PathBuf>) -> Self {
        self.descriptors = Some(file.into());
        self
    }

    /// Compiles files that are in, or relative to, one of the directories `includes`, with all that they import: one file of Rust for
    /// each package. Cargo is told which files it was made of.
    ///
    /// # Errors
    /// A file cannot be read or has a mistake: the text has its name, line and column. Or a file cannot be written.
    pub fn compile(
        mut self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let mut compiler = protox::Compiler::new(includes)?;
        compiler.include_source_info(true).include_imports(true);
        compiler.open_files(protos)?;
        for path in compiler.files().filter_map(|file| file.path()) {
            println!("cargo:rerun-if-changed={}", path.display());
        }
        if let Some(path) = self.descriptors {
            let written = std::fs::write(&path, compiler.encode_file_descriptor_set());
            written.map_err(|error| Error::write(&path, error))?;
        }
        let files = compiler.file_descriptor_set();
        let services = Services::new(self.library, &files);
        self.config.service_generator(Box::new(services));
        let compiled = self.config.compile_fds(files);
        compiled.map_err(Error::generate)
    }
}
