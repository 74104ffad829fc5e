//! Files in, code or errors out.

use std::fs;
use std::path::Path;

use ringmux_build::{Builder, Error};
use tempfile::TempDir;

/// Files and the directory for their code, which lasts as long as this.
struct Project(TempDir);

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        fs::create_dir(directory.path().join("out")).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn compile(&self, file: &str) -> Result<(), Error> {
        self.builder().compile(&[file], &[self.path()])
    }

    fn builder(&self) -> Builder {
        Builder::new().out_dir(self.path().join("out"))
    }

    fn code(&self, file: &str) -> String {
        let code = fs::read_to_string(self.path().join("out").join(file)).unwrap();
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

const HEAD: &str = "syntax = \"proto3\";\npackage a.v1;\n";

fn source(text: &str) -> String {
    format!("{HEAD}{text}")
}

#[test]
fn a_service_becomes_a_trait_with_the_attribute() {
    let text = source(
        "import \"google/protobuf/empty.proto\";
        message Item { bytes body = 1; }
        // Stores items.
        service Store {
            // Gives one back.
            rpc Get(Item) returns (Item);
            rpc List(google.protobuf.Empty) returns (stream Item);
            rpc Put(stream Item) returns (google.protobuf.Empty);
            rpc HTTPSync(stream Item) returns (stream Item);
            rpc New(Item) returns (Item);
            rpc Type(Item) returns (Item);
        }",
    );
    let project = Project::new(&[("store.proto", &text)]);
    project.compile("store.proto").unwrap();
    let code = project.code("a.v1.rs");
    println!("{code}");
    for expected in [
        "/// Stores items. #[::ringmux::service(name = \"a.v1.Store\", codec = \"prost\", crate = ::ringmux)] pub trait Store {",
        "/// Gives one back. #[method(name = \"Get\")] async fn get( &self, cx: &::ringmux::rpc::Context, request: Item, ) \
         -> ::core::result::Result<Item, ::ringmux::rpc::Status>;",
        "async fn list( &self, cx: &::ringmux::rpc::Context, request: (), out: ::ringmux::rpc::Sender<Item>, ) \
         -> ::core::result::Result<(), ::ringmux::rpc::Status>;",
        "async fn put( &self, cx: &::ringmux::rpc::Context, requests: ::ringmux::rpc::Receiver<Item>, ) \
         -> ::core::result::Result<(), ::ringmux::rpc::Status>;",
        "#[method(name = \"HTTPSync\")] async fn http_sync( &self, cx: &::ringmux::rpc::Context, \
         requests: ::ringmux::rpc::Receiver<Item>, out: ::ringmux::rpc::Sender<Item>, )",
        "#[method(name = \"New\")] async fn new_(",
        "#[method(name = \"Type\")] async fn r#type(",
        "pub body: ::prost::bytes::Bytes",
    ] {
        assert!(code.contains(expected), "{expected}");
    }
}

#[test]
fn names_of_messages_and_methods_are_left_to_them() {
    let text = source(
        "message StoreClient {}
        message store_server {}
        enum StoreMethods { NONE = 0; }
        message other {}
        service Store {
            rpc New(StoreClient) returns (StoreClient);
            rpc Channel(StoreClient) returns (StoreClient);
            rpc Clone(StoreClient) returns (StoreClient);
            rpc GetAll(StoreClient) returns (StoreClient);
            rpc get_all(StoreClient) returns (StoreClient);
            rpc getAll(StoreClient) returns (StoreClient);
        }
        service store {}
        service Other {}
        service PlainClient {}
        service Plain {}
        message Self {}",
    );
    let elsewhere = "syntax = \"proto3\";\npackage b;\nmessage Plain {}\nmessage PlainServer {}\n";
    let with_import = text.replace(HEAD, &format!("{HEAD}import \"b.proto\";\n"));
    let project = Project::new(&[("store.proto", &with_import), ("b.proto", elsewhere)]);
    project.compile("store.proto").unwrap();
    let code = project.code("a.v1.rs");
    println!("{code}");
    // However the lines are broken.
    let bare = |text: &str| text.replace(' ', "").replace(",)", ")");
    let code = bare(&code);
    let attribute = |name: &str, more: &str, service: &str| {
        let options = format!("name = \"a.v1.{name}\", codec = \"prost\", crate = ::ringmux{more}");
        bare(&format!("service({options})] pub trait {service} {{"))
    };
    for expected in [
        attribute(
            "Store",
            ", client = StoreClient_, server = StoreServer_, methods = StoreMethods_",
            "Store",
        ),
        attribute(
            "store",
            ", client = StoreClient__, server = StoreServer__, methods = StoreMethods__",
            "Store_",
        ),
        attribute(
            "Other",
            ", client = OtherClient, server = OtherServer, methods = OtherMethods",
            "Other_",
        ),
        attribute("PlainClient", "", "PlainClient"),
        attribute("Plain", ", client = PlainClient_", "Plain"),
    ] {
        assert!(code.contains(&expected), "{expected}");
    }
    let methods = [
        ("New", "new_"),
        ("Channel", "channel_"),
        ("Clone", "clone_"),
        ("GetAll", "get_all"),
        ("get_all", "get_all_"),
        ("getAll", "get_all__"),
    ];
    for (name, function) in methods {
        let expected = bare(&format!(
            "#[method(name = \"{name}\")] async fn {function}("
        ));
        assert!(code.contains(&expected), "{expected}");
    }
}

#[test]
fn names_that_begin_with_a_digit_are_those_of_prost() {
    let text = source(
        "message _2Bar {}
        message _3dServer {}
        service _1Foo { rpc _4Get(_2Bar) returns (_3dServer); }
        service _2bar {}
        service _3d {}",
    );
    let project = Project::new(&[("digits.proto", &text)]);
    project.compile("digits.proto").unwrap();
    let code = project.code("a.v1.rs");
    println!("{code}");
    for expected in [
        "pub struct _2bar",
        "pub struct _3dServer",
        "name = \"a.v1._1Foo\", codec = \"prost\", crate = ::ringmux)] pub trait _1foo {",
        "async fn _4get( &self, cx: &::ringmux::rpc::Context, request: _2bar, ) \
         -> ::core::result::Result<_3dServer, ::ringmux::rpc::Status>;",
        "pub trait _2bar_ {",
        "server = _3dServer_",
    ] {
        assert!(code.contains(expected), "{expected}");
    }
}

#[test]
fn settings_reach_prost_and_the_attribute() {
    let text =
        source("message Item { bytes body = 1; } service Store { rpc Get(Item) returns (Item); }");
    let project = Project::new(&[("store.proto", &text)]);
    let descriptors = project.path().join("store.bin");
    let builder = project
        .builder()
        .library("crate::net")
        .descriptors(&descriptors);
    let builder = builder.prost(|config| {
        config
            .bytes([""; 0])
            .type_attribute("Item", "#[derive(Marked)]");
    });
    builder
        .compile(&["store.proto"], &[project.path()])
        .unwrap();
    let code = project.code("a.v1.rs");
    assert!(code.contains(
        "#[crate::net::service(name = \"a.v1.Store\", codec = \"prost\", crate = crate::net)]"
    ));
    assert!(code.contains("#[derive(Marked)]"), "{code}");
    assert!(
        code.contains("pub body: ::prost::alloc::vec::Vec<u8>"),
        "{code}"
    );
    assert!(fs::metadata(descriptors).unwrap().len() > 0);
}

/// The text of the error, which both forms have, and the file that it names.
fn fails(files: &[(&str, &str)]) -> (String, Option<String>) {
    let error = Project::new(files).compile("a.proto").unwrap_err();
    assert_eq!(error.to_string(), format!("{error:?}"));
    (error.to_string(), error.file().map(str::to_owned))
}

#[test]
fn a_mistake_is_told_with_file_line_and_column() {
    let cases = [
        ("message Item { bytes body = ; }", "a.proto:3:29: expected "),
        ("message Item { Missing body = 1; }", "a.proto:3:16: "),
        (
            "import \"b.proto\";",
            "a.proto:3:1: import 'b.proto' not found",
        ),
        (
            "message Item {}\nservice Store {\n  rpc Get(Item) returns (Nothing);\n}",
            "a.proto:5:26: ",
        ),
    ];
    for (text, expected) in cases {
        let (told, file) = fails(&[("a.proto", &source(text))]);
        println!("{told}");
        assert!(told.starts_with(expected), "{expected}: {told}");
        assert_eq!(file.as_deref(), Some("a.proto"));
    }
}

#[test]
fn a_mistake_in_an_import_names_the_import() {
    let good = source("import \"b.proto\";");
    let (told, file) = fails(&[
        ("a.proto", &good),
        ("b.proto", "syntax = \"proto3\";\nmesage B {}\n"),
    ]);
    assert!(told.starts_with("b.proto:2:1: "), "{told}");
    assert_eq!(file.as_deref(), Some("b.proto"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let (told, _) = fails(&[]);
    assert!(told.contains("a.proto"), "{told}");
}
