//! Services as traits with the attribute of the library.

use std::collections::HashSet;
use std::fmt::Write as _;

use prost_build::{Method, Service, ServiceGenerator};
use prost_types::FileDescriptorSet;

use crate::names::{Types, full_name};

/// Functions that each client has. The last two are those of all types, and would be called instead of a method.
const CLIENT_FUNCTIONS: [&str; 5] = ["new", "channel", "clone", "into", "try_into"];

/// Writes a trait for each service.
pub(crate) struct Services {
    /// Where the library is.
    library: String,
    types: Types,
}

impl Services {
    /// For the services of these files.
    pub(crate) fn new(library: String, files: &FileDescriptorSet) -> Self {
        let types = Types::of(files);
        Self { library, types }
    }
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, code: &mut String) {
        service.comments.append_with_indent(0, code);
        let name = full_name(&service.package, &service.proto_name);
        let library = &self.library;
        let mut attribute =
            format!("{library}::service(name = {name:?}, codec = \"prost\", crate = {library}");
        let made = self.types.made(&name, &service.name);
        for (option, ident) in made.renamed() {
            let _ = write!(attribute, ", {option} = {ident}");
        }
        let _ = writeln!(code, "#[{attribute})]\npub trait {} {{", made.service());
        let mut functions: HashSet<String> = CLIENT_FUNCTIONS.map(str::to_owned).into();
        for method in &service.methods {
            let mut name = method.name.clone();
            while !functions.insert(name.clone()) {
                name.push('_');
            }
            self.method(&name, method, code);
        }
        code.push_str("}\n");
    }
}

impl Services {
    fn method(&self, name: &str, method: &Method, code: &mut String) {
        method.comments.append_with_indent(1, code);
        let (rpc, input, output) = (
            format!("{}::rpc", self.library),
            &method.input_type,
            &method.output_type,
        );
        let request = match method.client_streaming {
            true => format!("requests: {rpc}::Receiver<{input}>"),
            false => format!("request: {input}"),
        };
        let (out, answer) = match method.server_streaming {
            true => (format!(", out: {rpc}::Sender<{output}>"), "()"),
            false => (String::new(), &**output),
        };
        let _ = writeln!(
            code,
            "#[method(name = {:?})]\n\
             async fn {name}(&self, cx: &{rpc}::Context, {request}{out}) \
             -> ::core::result::Result<{answer}, {rpc}::Status>;",
            method.proto_name
        );
    }
}
