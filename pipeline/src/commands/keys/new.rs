//! `aion keys new`.

use crate::access::key::NewKey;

/// The arguments of `aion keys new`.
#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// The principal who gets it.
    #[arg(long, value_name = "ID")]
    principal: String,
    /// Its roles, with commas, for the lines of a principal who isn't in the policy yet.
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,
}

/// Prints a new key, and what is kept of it. Nothing is written anywhere.
pub(super) fn run(args: &NewArgs) {
    let key = NewKey::make();
    let (principal, roles) = (&args.principal, args.roles.join(", "));
    eprintln!("The key of {principal}. It is shown this once, and can't be had back:\n");
    println!("{}", key.text);
    eprintln!(
        "\nWhat lets its holder in, for policies/access.yaml (a second key of a principal is another line of \
         keys):\n\n  - id: {principal}\n    roles: [{roles}]\n    keys:\n      - prefix: {}\n        sha256: {}\n",
        key.prefix,
        key.digest.hex()
    );
}
