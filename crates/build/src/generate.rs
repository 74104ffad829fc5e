//! Services as traits with the attribute of the library.

use std::fmt::Write as _;

use prost_build::{Method, Service, ServiceGenerator};

/// Functions that each client has.
const CLIENT_FUNCTIONS: [&str; 2] = ["new", "channel"];

/// Writes a trait for each service.
pub(crate) struct Services {
    /// Where the library is.
    pub(crate) library: String,
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, code: &mut String) {
        service.comments.append_with_indent(0, code);
        let name = match &*service.package {
            "" => service.proto_name,
            package => format!("{package}.{}", service.proto_name),
        };
        let library = &self.library;
        let _ = writeln!(
            code,
            "#[{library}::service(name = {name:?}, codec = \"prost\", crate = {library})]\n\
             pub trait {} {{",
            service.name
        );
        for method in &service.methods {
            self.method(method, code);
        }
        code.push_str("}\n");
    }
}

impl Services {
    fn method(&self, method: &Method, code: &mut String) {
        method.comments.append_with_indent(1, code);
        let name = match CLIENT_FUNCTIONS.contains(&&*method.name) {
            true => format!("{}_", method.name),
            false => method.name.clone(),
        };
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
