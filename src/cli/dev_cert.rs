//! `dheera_ai dev-cert`: a certificate for trying TLS on one machine, and what to tell clients so that they trust it.
//!
//! It makes an authority, signs one server certificate and throws the authority's key away: nobody can sign another one
//! with what clients came to trust. Certificates pass strict verification (Python 3.13's `VERIFY_X509_STRICT`: key usage,
//! key identifiers, basic constraints) and hold for 397 days, the most that browsers accept. It is no way to get a
//! certificate for others than oneself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::ToSpan;
use jiff::civil::Date;
use openssl::nid::Nid;
use openssl::x509::{X509, X509Ref};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::client::Failure;
use crate::config::certificate::{CertificateFiles, ServerCertificate};

pub(super) const AFTER_HELP: &str = "\
Examples:
  dheera_ai dev-cert                              certificate for localhost in ./dev-cert, and what to do with it
  dheera_ai dev-cert --host proxy.lan --host 192.168.1.7
                                                  names by which other machines call this one
  dheera_ai dev-cert --renew                      another certificate: clients must be told to trust it again
  dheera_ai --ssl-certfile-path dev-cert/cert.pem --ssl-keyfile-path dev-cert/key.pem

Why: boto3 from 1.44 on sends a key as bearer token (AWS_BEARER_TOKEN_BEDROCK) over https:// only.";

/// What `dev-cert` is told.
#[derive(Debug, Args)]
pub(super) struct DevCertArgs {
    /// Where ca.pem, cert.pem and key.pem are, or are made
    #[arg(long, value_name = "DIR", default_value = "dev-cert")]
    dir: PathBuf,
    /// Further name or address of this machine, besides localhost, 127.0.0.1, ::1 and its host name
    #[arg(long, value_name = "NAME", value_parser = host)]
    host: Vec<String>,
    /// Replace what is there
    #[arg(long)]
    renew: bool,
}

/// Days, the day of its making included.
const VALID_DAYS: i32 = 397;

/// By this name of the issuer the files are known again.
const MADE_BY: &str = "dheera_ai dev-cert";

fn host(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // As it is read back, `::1` and `0:0:0:0:0:0:0:1` being one.
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text.len() <= 253 && name.split('.').all(label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("write a DNS name or an IP address, without scheme and port".to_owned())
}

/// Where the three files are.
struct Place {
    ca: PathBuf,
    files: CertificateFiles,
}

/// What is there already.
enum Found {
    Nothing,
    /// Made by this command, and usable.
    Good(Box<ServerCertificate>),
    Expired,
    /// Not to be overwritten, because of this.
    Foreign(String),
}

/// Makes the certificate, unless there is one, and says what to do with it.
pub(super) fn run(arguments: &DevCertArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let directory = std::path::absolute(&arguments.dir)?;
    let place = Place {
        ca: directory.join("ca.pem"),
        files: CertificateFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") },
    };
    let now = jiff::Timestamp::now();
    let found = if arguments.renew { Found::Nothing } else { place.look(now.as_second()) };
    let certificate = match found {
        Found::Good(certificate) => {
            let missing = arguments.host.iter().find(|host| !names(certificate.leaf()).contains(host));
            if let Some(missing) = missing {
                let what = format!("the certificate in {} is not for {missing}", directory.display());
                return Err(Failure::Impossible(format!("{what}: add --renew to make another for all names you give")));
            }
            certificate
        }
        Found::Foreign(why) => {
            let what = format!("{} is not overwritten: {why}", directory.display());
            let remedy =
                "choose another directory with --dir, or add --renew to replace its ca.pem, cert.pem and key.pem";
            return Err(Failure::Impossible(format!("{what}; {remedy}")));
        }
        Found::Nothing | Found::Expired => {
            let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
            let made = Made::new(all_names(&arguments.host), today)
                .map_err(|error| Failure::Impossible(format!("no certificate can be made: {error}")))?;
            place
                .write(&made)
                .map_err(|error| Failure::Impossible(format!("{} cannot be written: {error}", directory.display())))?;
            let loaded = place.files.load();
            Box::new(loaded.map_err(|flaw| Failure::Impossible(format!("what was made {}", flaw.what)))?)
        }
    };
    Ok(tell(&place, &certificate, out)?)
}

/// What every certificate is for, and what was asked for.
fn all_names(asked: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
    // Linux's; elsewhere the name is left out.
    let own = fs::read_to_string("/proc/sys/kernel/hostname").ok().and_then(|own| host(own.trim()).ok());
    for name in own.iter().chain(asked) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// PEM texts.
struct Made {
    ca: String,
    certificate: String,
    key: zeroize::Zeroizing<String>,
}

impl Made {
    fn new(names: Vec<String>, today: Date) -> Result<Self, rcgen::Error> {
        // A day early, for clients whose clock is late.
        let (from, until) = (today.saturating_sub(1.day()), today.saturating_add((VALID_DAYS - 1).days()));
        let time = |date: Date| {
            let part = |part: i8| u8::try_from(part).unwrap_or(1);
            date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
        };
        let params = |name: &str, names: Vec<String>| -> Result<CertificateParams, rcgen::Error> {
            let mut params = CertificateParams::new(names)?;
            (params.not_before, params.not_after) = (time(from), time(until));
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, MADE_BY);
            params.distinguished_name.push(DnType::CommonName, name);
            Ok(params)
        };
        // Each authority has a name of its own: a client that trusts two must not take one for the other.
        let ca_key = KeyPair::generate()?;
        let number = ca_key.public_key_raw().iter().skip(1).take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let mut ca = params(&format!("dheera_ai development CA {number:08x}"), Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let mut server = params("localhost", names)?;
        server.is_ca = IsCa::ExplicitNoCa;
        server.use_authority_key_identifier_extension = true;
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
        Ok(Self { ca: ca_pem, certificate, key: key.serialize_pem().into() })
    }
}

impl Place {
    fn look(&self, now_s: i64) -> Found {
        let paths = [&self.ca, &self.files.certificate, &self.files.key];
        // A link that leads nowhere is there too.
        if paths.iter().all(|path| path.symlink_metadata().is_err()) {
            return Found::Nothing;
        }
        let certificate = match self.files.load() {
            Ok(certificate) => certificate,
            Err(flaw) => {
                let file = self.files.path(flaw.file).display();
                return Found::Foreign(format!("{file} {}", flaw.what));
            }
        };
        let ca = fs::read(&self.ca).ok().and_then(|pem| X509::from_pem(&pem).ok());
        let is_ours = |certificate: &X509Ref| {
            let mut names = certificate.issuer_name().entries_by_nid(Nid::ORGANIZATIONNAME);
            names.next().is_some_and(|name| name.data().as_slice() == MADE_BY.as_bytes())
        };
        let signed =
            |ca: &X509| ca.public_key().and_then(|key| certificate.leaf().verify(&key)).unwrap_or(false) && is_ours(ca);
        if !ca.as_ref().is_some_and(signed) {
            return Found::Foreign("its files were not made by this command, or not together".to_owned());
        }
        if certificate.untimely(now_s).is_some() { Found::Expired } else { Found::Good(Box::new(certificate)) }
    }

    /// The key first: a proxy that reads in between keeps its certificate until all are there.
    fn write(&self, made: &Made) -> io::Result<()> {
        if let Some(directory) = self.ca.parent() {
            fs::create_dir_all(directory)?;
        }
        write_whole(&self.files.key, made.key.as_bytes(), 0o600)?;
        write_whole(&self.files.certificate, made.certificate.as_bytes(), 0o644)?;
        write_whole(&self.ca, made.ca.as_bytes(), 0o644)
    }
}

/// Whoever reads the file finds all of it or what was there before; nobody but its owner ever reads one of mode 0600.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let draft = path.with_extension(format!("pem.{}", std::process::id()));
    let write = || {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().inspect_err(|_| {
        // Of a draft that could not be made nothing is there to be removed.
        fs::remove_file(&draft).unwrap_or_default();
    })
}

/// The names and addresses that a certificate is for, as they are written.
fn names(certificate: &X509Ref) -> Vec<String> {
    let address = |bytes: &[u8]| -> Option<String> {
        let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::from(bytes).to_string());
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::from(bytes).to_string())).ok()
    };
    let names = certificate.subject_alt_names().into_iter().flatten();
    names.filter_map(|name| name.dnsname().map(str::to_owned).or_else(|| name.ipaddress().and_then(address))).collect()
}

fn tell(place: &Place, certificate: &ServerCertificate, out: &mut dyn Write) -> io::Result<()> {
    let until = jiff::Timestamp::from_second(certificate.not_after_s()).map_err(io::Error::other)?;
    let until = until.to_zoned(jiff::tz::TimeZone::UTC).date();
    let shown = |path: &Path| quoted(&path.display().to_string());
    let (ca, cert, key) = (shown(&place.ca), shown(&place.files.certificate), shown(&place.files.key));
    let names = names(certificate.leaf()).join(", ");
    writeln!(
        out,
        "\
A certificate for {names}, valid until {until}.
Its authority's key is gone: nothing else can be signed by what clients trust here.

# 1. The proxy, in a shell of its own (SSL_CERT_FILE below would hide AWS's certificates from it):
dheera_ai --config config.yaml --ssl-certfile-path {cert} --ssl-keyfile-path {key}

# 2. Clients, each in its shell, call https://localhost:4000/bedrock and trust the authority:
export AWS_CA_BUNDLE={ca}          # boto3, AWS CLI
export NODE_EXTRA_CA_CERTS={ca}    # JavaScript SDKs, Claude Code
export SSL_CERT_FILE={ca}          # Anthropic's and openai's Python SDKs, Rust SDK
export REQUESTS_CA_BUNDLE={ca}     # requests
curl --cacert {ca} https://localhost:4000/health/liveliness
dheera_ai key list --url https://localhost:4000 --ca {ca}

# Why: boto3 from 1.44 on sends a key as bearer token (AWS_BEARER_TOKEN_BEDROCK) over https:// only.
# AWS_CA_BUNDLE, SSL_CERT_FILE and REQUESTS_CA_BUNDLE stand in place of the public authorities: unset them to call others."
    )
}

/// For a shell.
fn quoted(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@%".contains(&byte);
    if path.bytes().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
