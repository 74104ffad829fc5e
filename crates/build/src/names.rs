//! The names of the types that are made of services, beside those of messages and of each other.

use std::collections::{HashMap, HashSet};

use heck::ToUpperCamelCase;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

/// The kinds of types that are made beside a trait: the option of the attribute that names it, and the end of its usual name.
const KINDS: [(&str, &str); 3] = [
    ("client", "Client"),
    ("server", "Server"),
    ("methods", "Methods"),
];

/// The types that are made of one service.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    service: String,
    /// Those of [`KINDS`] that have another name than the attribute gives them.
    renamed: Vec<(&'static str, String)>,
}

impl Made {
    /// The name of the trait.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// Options of the attribute, and their values.
    pub(crate) fn renamed(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.renamed.iter().map(|(option, name)| (*option, &**name))
    }
}

/// The types of all services, by the services' full names.
#[derive(Debug)]
pub(crate) struct Types(HashMap<String, Made>);

impl Types {
    /// Each name is that of one type of its package: a type of a service gets a `_` behind its name until it is. Names of messages
    /// have none there.
    pub(crate) fn of(files: &FileDescriptorSet) -> Self {
        let mut taken: HashMap<&str, HashSet<String>> = HashMap::new();
        for file in &files.file {
            let messages = file.message_type.iter().map(DescriptorProto::name);
            let enums = file.enum_type.iter().map(EnumDescriptorProto::name);
            let names = messages.chain(enums).map(in_rust);
            taken.entry(file.package()).or_default().extend(names);
        }
        let mut types = HashMap::new();
        let services = || {
            let of_file = |file| (services_of(file), file.package());
            files.file.iter().map(of_file)
        };
        // All traits before what is made beside them: a service `BankClient` keeps its name beside a service `Bank`.
        for (names, package) in services() {
            let taken = taken.entry(package).or_default();
            for name in names {
                let service = free(taken, in_rust(name));
                let renamed = Vec::new();
                types.insert(full_name(package, name), Made { service, renamed });
            }
        }
        for (names, package) in services() {
            let taken = taken.entry(package).or_default();
            for name in names {
                let Some(made) = types.get_mut(&full_name(package, name)) else {
                    continue;
                };
                for (option, end) in KINDS {
                    let by_the_attribute = format!("{}{end}", made.service);
                    let name = free(taken, format!("{}{end}", in_rust(name)));
                    if name != by_the_attribute {
                        made.renamed.push((option, name));
                    }
                }
            }
        }
        Self(types)
    }

    /// The types of a service with this full name, which is so called in Rust.
    pub(crate) fn made(&self, full_name: &str, in_rust: &str) -> Made {
        self.0.get(full_name).cloned().unwrap_or_else(|| Made {
            service: in_rust.to_owned(),
            renamed: Vec::new(),
        })
    }
}

fn services_of(file: &FileDescriptorProto) -> Vec<&str> {
    file.service
        .iter()
        .map(ServiceDescriptorProto::name)
        .collect()
}

/// The full name of a service, as on the wire.
pub(crate) fn full_name(package: &str, service: &str) -> String {
    match package {
        "" => service.to_owned(),
        package => format!("{package}.{service}"),
    }
}

/// The name of a type, as prost makes it.
fn in_rust(name: &str) -> String {
    let name = name.to_upper_camel_case();
    match &*name {
        "Self" => "Self_".to_owned(),
        // As in `_1Foo`, whose `_` the case takes away.
        digit if digit.starts_with(char::is_numeric) => format!("_{digit}"),
        _ => name,
    }
}

/// The name, or the name with as many `_` as make it free; it is taken then.
fn free(taken: &mut HashSet<String>, mut name: String) -> String {
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    name
}
