//! What the compiler says about traits that are no services.

#[test]
fn errors_are_at_the_place_and_say_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
