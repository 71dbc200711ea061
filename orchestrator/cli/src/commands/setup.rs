//! `setup`: host-runner, client packages and CA into a bucket, and the document that names them by digest.
//!
//! Everything here can be repeated: what is there with the same content is used as it is.

use crate::args::Setup;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, file};
use serde::Serialize;
use std::path::Path;
use tde2hsm_cloud::Aws;
use tde2hsm_cloud::s3::Made;
use tde2hsm_document::{Artefact, BucketName, DocumentSource, FileName, Package, PackageVersion, object_key};
use tde2hsm_protocol::{AccountId, Code, Digest};

#[derive(Serialize)]
struct Done {
    account: AccountId,
    region: String,
    bucket: BucketName,
    document: String,
    document_version: String,
    document_hash: Digest,
    files: Vec<Stored>,
}

#[derive(Serialize)]
struct Stored {
    file: FileName,
    sha256: Digest,
    version: String,
    /// It was there already.
    kept: bool,
}

struct Store<'a> {
    aws: &'a Aws,
    owner: &'a AccountId,
    bucket: &'a BucketName,
    context: &'a Context,
    stored: Vec<Stored>,
}

pub async fn run(context: &Context, args: Setup) -> Result<Exit, Failure> {
    // Files first: nothing is made in the account for a misspelt path.
    let runner = read(&args.runner)?;
    let packages =
        args.packages.iter().map(|(os, path)| Ok((os.clone(), Rpm::read(path)?))).collect::<Result<Vec<_>, Failure>>()?;
    let ca = args.ca.as_deref().map(read).transpose()?;
    if let (false, None) = (packages.is_empty(), &ca) {
        context.out.warn("no `--ca`: hosts cannot verify the cluster without its certificate");
    }

    let aws = context.aws(None).await?;
    let caller = aws.sts.caller().await?;
    let bucket = match args.bucket {
        Some(bucket) => bucket,
        None => {
            BucketName::new(format!("tde2hsm-{}-{}", caller.account, aws.region)).map_err(|e| Failure::usage(e.to_string()))?
        }
    };
    context.out.say(&format!("account {}, region {}, bucket {bucket}", caller.account, aws.region));
    aws.s3.ensure_bucket(&bucket, &caller.account).await?;
    let mut store = Store { aws: &aws, owner: &caller.account, bucket: &bucket, context, stored: Vec::new() };
    let runner = store.put(FileName::new("host-runner").expect("letters and a dash"), runner).await?;
    let mut stored = Vec::new();
    for (os, rpm) in packages {
        let artefact = store.put(rpm.file, rpm.content).await?;
        stored.push(Package { os, artefact, name: rpm.name, version: rpm.version });
    }
    let ca = match ca {
        Some(content) => Some(store.put(FileName::new("customerCA.crt").expect("letters and a dot"), content).await?),
        None => None,
    };
    let files = store.stored;
    let source = DocumentSource { region: aws.region.clone(), bucket: bucket.clone(), runner, packages: stored, ca };
    let (pin, made) = aws.ssm.ensure_document(&args.document.name, &source.render()).await?;
    let word = if made == Made::New { "made" } else { "there already" };
    context.out.say(&format!("document {} version {}: {word}", pin.name, pin.version));
    let done = Done {
        account: caller.account,
        region: aws.region.to_string(),
        bucket,
        document: pin.name,
        document_version: pin.version,
        document_hash: pin.hash,
        files,
    };
    let human = format!("document `{}` version {} with hash {}", done.document, done.document_version, done.document_hash);
    context.out.answer("setup", &done, &human)?;
    Ok(Exit::Ok)
}

impl Store<'_> {
    async fn put(&mut self, name: FileName, content: Vec<u8>) -> Result<Artefact, Failure> {
        let sha256 = Digest::of(&content);
        let (version, made) = self.aws.s3.put(self.bucket, self.owner, &object_key(sha256, &name), content).await?;
        let kept = made == Made::WasThere;
        self.context.out.say(&format!("{name} {}: sha256 {sha256}", if kept { "is there" } else { "stored" }));
        self.stored.push(Stored { file: name.clone(), sha256, version: version.to_string(), kept });
        Ok(Artefact { file: name, sha256, version })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| file("read", path, Code::ARGUMENT_FILE, &e))
}

/// A client package: its name and version come from its own header, not from its file name.
struct Rpm {
    file: FileName,
    content: Vec<u8>,
    name: FileName,
    version: PackageVersion,
}

impl Rpm {
    fn read(path: &Path) -> Result<Rpm, Failure> {
        let content = read(path)?;
        let wrong = |why: String| Failure::new(Code::ARGUMENT_FILE, format!("`{}`: {why}", path.display()));
        let metadata =
            rpm::PackageMetadata::parse(&mut content.as_slice()).map_err(|e| wrong(format!("not an RPM package: {e}")))?;
        let field = |e: rpm::Error| wrong(format!("its header lacks a field: {e}"));
        let version = format!("{}-{}", metadata.get_version().map_err(field)?, metadata.get_release().map_err(field)?);
        let name = metadata.get_name().map_err(field)?;
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Rpm {
            file: FileName::new(file).map_err(|e| wrong(e.to_string()))?,
            name: FileName::new(name).map_err(|e| wrong(e.to_string()))?,
            version: PackageVersion::new(version).map_err(|e| wrong(e.to_string()))?,
            content,
        })
    }
}
