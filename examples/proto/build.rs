//! Compiles the files below `proto`.

fn main() -> Result<(), ringmux_build::Error> {
    ringmux_build::compile(&["bank.proto", "names.proto"], &["proto"])
}
