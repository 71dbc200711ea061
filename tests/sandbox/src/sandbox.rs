//! A whole world in one directory: built, served, and taken down again.

use crate::agent::Agent;
use crate::cloud::Cloud;
use crate::databases::{self, Programs, Site};
use crate::ebs::{Ebs, Volume};
use crate::fleet::{HostPlan, Size};
use crate::functions::{Functions, Setup};
use crate::host::rootfs::{self, RootSpec, Users};
use crate::host::{InitArgs, Mount, Namespace};
use crate::imds::Imds;
use crate::layout::Layout;
use crate::network::{DRILL_ROLE, DrPlace, Network};
use crate::recovery::{Launch, common_binds};
use crate::tokens::Tokens;
use crate::userns::Rights;
use anyhow::{Context as _, Result, bail};
use sandbox_shim::Vendor;
use sandbox_shim::admin::Token;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tde2hsm_model::{AccountId, Caller, InstanceId, Principal, Region, Request, Service, World, WorldOptions};
use tokio::net::TcpListener;

pub const ACCOUNT: &str = "123456789012";
pub const PRIMARY: &str = "us-east-1";
pub const SECOND: &str = "us-west-2";
pub const ROLE: &str = "tde2hsm-host";
/// The tag that makes an instance part of the fleet.
pub const FLEET_TAG: (&str, &str) = ("tde2hsm:fleet", "demo");
/// The stores behind PKCS#11 libraries.
pub const TOKENS: [&str; 2] = ["old-hsm", "cloudhsm"];
/// Hosts whose databases are seeded or read at once.
pub const WIDTH: usize = 4;
/// The NVMe device of the root volume, and what is mounted of it.
const ROOT_DEVICE: (&str, &str) = ("nvme0n1", "/dev/nvme0n1p1");
const DATA_DEVICE: (&str, &str) = ("nvme1n1", "/dev/nvme1n1");
/// Where the data volume lies: data files, control files, redo.
pub const DATA_DIR: &str = "/u01/oradata";
const OLD_HSM: [&str; 2] = ["10.0.7.10", "10.0.7.11"];
/// A version of the agent that interpolates parameters as environment variables.
pub const AGENT_VERSION: &str = "3.3.3572.0";
pub const CUSTOMER_CA: &str = include_str!("customerCA.crt");

#[derive(Debug, Clone)]
pub struct UpOptions {
    pub dir: PathBuf,
    pub fleet: Size,
    pub seed: u64,
    pub record: Option<PathBuf>,
    pub rights: Rights,
    /// The rights are those of a user namespace.
    pub borrowed: bool,
    pub port: u16,
    pub functions: Option<Setup>,
    /// Directory of the templates: what the roles of functions and of a drill's hosts may do.
    pub templates: PathBuf,
}

#[derive(Debug)]
pub struct SandboxHost {
    pub id: InstanceId,
    pub region: Region,
    pub plan: HostPlan,
    pub namespace: Arc<Namespace>,
    pub agent: Arc<Agent>,
}

impl SandboxHost {
    /// The HSMs that the host's CloudHSM client is configured for.
    pub fn cloudhsm_servers(&self) -> Vec<String> {
        let text = fs::read(self.namespace.outside(Vendor::CloudHsm.config_path())).unwrap_or_default();
        let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        config["servers"].as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
    }
}

/// The names and passwords of a world, all drawn from its seed.
#[derive(Debug, Clone)]
pub struct Secrets {
    pub old_hsm_user: String,
    pub old_hsm_password: String,
    pub cloudhsm_user: String,
    pub cloudhsm_password: String,
    pub software: String,
}

#[derive(Debug)]
pub struct Sandbox {
    pub layout: Layout,
    pub cloud: Arc<Cloud>,
    /// The fleet's.
    pub hosts: Vec<Arc<SandboxHost>>,
    /// Hosts that a drill made, while they are there.
    pub drills: Mutex<BTreeMap<InstanceId, Arc<SandboxHost>>>,
    /// Every instance that was ever launched.
    pub launches: Mutex<BTreeMap<InstanceId, Launch>>,
    pub ebs: Ebs,
    pub tokens: Tokens,
    pub functions: Functions,
    pub templates: PathBuf,
    /// Held while effects are carried out.
    pub(crate) carrying: Mutex<()>,
    pub region: Region,
    pub dr: DrPlace,
    /// The KMS key of the fleet's volumes.
    pub volumes_key: String,
    pub cluster: String,
    pub cluster_group: String,
    pub vpc: String,
    pub secrets: Secrets,
    pub arns: BTreeMap<String, String>,
    pub endpoint: String,
    pub users: Users,
    pub program: PathBuf,
    /// Root of a user namespace only.
    rights_are_borrowed: bool,
}

impl Sandbox {
    /// Builds the world and starts everything that serves.
    pub async fn up(options: &UpOptions) -> Result<Arc<Self>> {
        let dir = std::path::absolute(&options.dir)?;
        let layout = Layout::new(&dir);
        if layout.fleet_file().exists() || layout.hosts().exists() {
            bail!(
                "{} holds a sandbox already; give another directory or remove it with: sandbox clean --dir {}",
                dir.display(),
                dir.display()
            );
        }
        let (region, second) = (Region::new(PRIMARY), Region::new(SECOND));
        for path in [
            layout.hosts(),
            layout.drills(),
            layout.s3(),
            layout.log(),
            layout.packages(),
            layout.scratch(),
            dir.join("truth"),
            layout.hsm_backups(),
            layout.network(&region),
            layout.network(&second),
        ] {
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let program = std::env::current_exe()?;
        let bin = dir.join("bin");
        fs::create_dir_all(&bin)?;
        let programs = Programs::find(&program, &bin)?;
        let users = if options.rights == Rights::Users { Users::FIELD } else { Users::SINGLE };

        let account = AccountId::new(ACCOUNT);
        let world = World::new(account, &[region.clone(), second.clone()], options.seed, WorldOptions::default());
        let cloud = Cloud::new(world, options.seed, &layout, options.record.as_deref())?;
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await.context("opening the services' port")?;
        let endpoint = format!("http://{}", listener.local_addr()?);

        let network = Network::draw(&cloud, &region);
        let secrets = Secrets::draw(&cloud);
        let hsms: Vec<String> =
            cloud.world().region(&region).map(|r| r.hsm.hsms(&network.cluster)).into_iter().flatten().map(|h| h.0).collect();
        let tokens = make_tokens(&layout, &region, &network.cluster, &secrets, &hsms)?;
        let arns = put_secrets(&cloud, &region, &second, &secrets)?;
        secrets.keep(&layout)?;
        let ebs = Ebs::new(&layout.ebs(), &bin)?;
        let mut hosts = Vec::new();
        for (number, plan) in options.fleet.plan().into_iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening a metadata port")?;
            let (identity, volumes) = network.launch(&cloud, &region, number, &plan);
            let endpoints = endpoints(&endpoint, &listener.local_addr()?.to_string());
            let root = layout.host_root(&identity.instance);
            rootfs::make(&root, &RootSpec { hostname: &plan.name, ip: &identity.private_ip, users, endpoints: &endpoints })?;
            let home = layout.hosts().join(identity.instance.as_str());
            let [root_volume, data_volume] = &volumes;
            let data = home.join("data");
            fs::create_dir_all(&data)?;
            rootfs::own(&data, users.oracle, users.oinstall)?;
            let mount = |source: &str, target: &str, upper: PathBuf, work: &str| Mount {
                source: source.to_owned(),
                target: target.to_owned(),
                lower: Vec::new(),
                upper,
                work: home.join("work").join(work),
            };
            let init = InitArgs {
                closed: None,
                root: root.clone(),
                hostname: plan.name.clone(),
                binds: binds(&layout, &region),
                mounts: vec![mount(ROOT_DEVICE.1, "/", root, "root"), mount(DATA_DEVICE.1, DATA_DIR, data, "data")],
                devices: vec![(ROOT_DEVICE.0.to_owned(), root_volume.clone()), (DATA_DEVICE.0.to_owned(), data_volume.clone())],
            };
            let namespace = Arc::new(Namespace::new(&program, &init));
            let id = identity.instance.clone();
            for (volume, mount) in volumes.iter().zip(&init.mounts) {
                let record =
                    Volume { instance: id.clone(), target: mount.target.clone(), upper: mount.upper.clone(), lower: Vec::new() };
                ebs.add(volume, record);
            }
            let agent = Agent::new(cloud.clone(), namespace.clone(), region.clone(), id.clone());
            tokio::spawn(Imds::new(cloud.clone(), identity).serve(listener));
            hosts.push(Arc::new(SandboxHost { id, region: region.clone(), plan, namespace, agent }));
        }
        let dr = DrPlace::draw(&cloud, &second);
        let sandbox = Arc::new(Self {
            layout,
            cloud,
            hosts,
            drills: Mutex::default(),
            launches: Mutex::default(),
            ebs,
            tokens,
            functions: Functions::default(),
            templates: options.templates.clone(),
            carrying: Mutex::new(()),
            region,
            dr,
            volumes_key: network.key.clone(),
            cluster_group: network.groups[1].clone(),
            vpc: network.vpc,
            cluster: network.cluster,
            secrets,
            arns,
            endpoint,
            users,
            program,
            rights_are_borrowed: options.borrowed,
        });
        let site = Site { programs: &programs, users, secrets: &sandbox.secrets, seed: options.seed, old_hsm: &OLD_HSM };
        let built = sandbox.on_each_host(WIDTH, |host| {
            databases::install(&site, &host.plan, host.namespace.root())?;
            host.namespace.start()?;
            databases::seed(&site, &host.plan, &host.namespace, &sandbox.layout.truth(&host.id))?;
            databases::start(users, &sandbox.secrets, &host.plan, &host.namespace)
        });
        for (host, result) in sandbox.hosts.iter().zip(built) {
            result.with_context(|| format!("host {}", host.plan.name))?;
        }
        sandbox.hsms_changed(&sandbox.region, &sandbox.cluster)?;
        crate::package::place(&programs.cloudhsm, &sandbox.layout.packages())?;
        fs::write(sandbox.layout.packages().join("customerCA.crt"), CUSTOMER_CA)?;
        fs::write(sandbox.layout.env_file(), sandbox.exports())?;
        fs::write(sandbox.layout.fleet_file(), sandbox.fleet_toml())?;
        if let Some(setup) = &options.functions {
            sandbox.functions.set_up(setup.clone());
        }
        let carrier = Arc::downgrade(&sandbox);
        sandbox.cloud.carried_by(move || {
            if let Some(sandbox) = carrier.upgrade() {
                sandbox.carry();
            }
        });
        tokio::spawn(sandbox.cloud.clone().serve(listener));
        tokio::spawn(sandbox.clone().carry_out());
        Ok(sandbox)
    }

    /// What a shell has to know.
    pub fn exports(&self) -> String {
        let key = self.cloud.operator();
        format!(
            "export AWS_ACCESS_KEY_ID={}\nexport AWS_SECRET_ACCESS_KEY={}\nexport AWS_REGION={}\nexport AWS_DEFAULT_REGION={}\nexport AWS_ENDPOINT_URL={}\nexport AWS_EC2_METADATA_DISABLED=true\nexport SANDBOX_CLOCK={}\nexport LD_PRELOAD={}\n",
            key.access,
            key.secret,
            self.region,
            self.region,
            self.endpoint,
            self.layout.clock().display(),
            self.layout.clock_library().display(),
        )
    }

    /// The operator's fleet file.
    fn fleet_toml(&self) -> String {
        let arn = |name: &str| self.arns.get(name).cloned().unwrap_or_default();
        format!(
            r#"[fleet]
name = "demo"
account = "{ACCOUNT}"
region = "{region}"

[cluster]
id = "{cluster}"

[secrets]
old_hsm = {{ arn = "{old}" }}
cloudhsm = {{ arn = "{cu}" }}
software = {{ arn = "{software}" }}

[escrow]
prefix = "tde/escrow"
replica_regions = ["{SECOND}"]

[options]
auto_open = "enable"
# The sandbox answers at once.
poll_seconds = 1
# Nobody has AWS's word for 12.2 with Client SDK 5 (O§6.1); whoever tested it says so by name.
oracle_matrix = ["oracle-12.2/sdk-5/hsm2m.medium/rhel-8"]

[waves]
canary = 1
concurrency = 8
budget = 4

# A backup a day: whoever waits for one says so and moves the clock on.
[protect]
mode = "off"

[[targets]]
tag = {{ key = "{key}", value = "{value}" }}

[dr]
region = "{dr}"
kms_key = "{kms}"
records_bucket = "{bucket}"
rpo_minutes = 1440
topic = "{topic}"

[dr.drill]
subnet = "{subnet}"
security_group = "{group}"
instance_profile = "{DRILL_ROLE}"
instance_type = "r6i.xlarge"
"#,
            dr = self.dr.region,
            kms = self.dr.key,
            bucket = self.dr.bucket,
            topic = self.dr.topic,
            subnet = self.dr.subnet,
            group = self.dr.group,
            region = self.region,
            cluster = self.cluster,
            old = arn("tde/old-hsm"),
            cu = arn("tde/cloudhsm-cu"),
            software = arn("tde/software"),
            key = FLEET_TAG.0,
            value = FLEET_TAG.1,
        )
    }

    /// Lets time pass in the world and carries out what it says.
    async fn carry_out(self: Arc<Self>) {
        loop {
            let busy = self.cloud.world().tick(self.cloud.clock.now());
            let sandbox = self.clone();
            let _ = tokio::task::spawn_blocking(move || sandbox.carry()).await;
            tokio::select! {
                () = self.cloud.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(if busy { 10 } else { 500 })) => {}
            }
        }
    }

    /// Does something on every host, a few at a time, and returns what came of it in the order of the hosts.
    pub fn on_each_host<T: Send>(&self, width: usize, work: impl Fn(&SandboxHost) -> Result<T> + Sync) -> Vec<Result<T>> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let results: Vec<std::sync::Mutex<Option<Result<T>>>> = self.hosts.iter().map(|_| std::sync::Mutex::new(None)).collect();
        let threads = width.min(self.hosts.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(host) = self.hosts.get(at) else { return };
                        let result = work(host);
                        *results[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
                    }
                });
            }
        });
        let taken = results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        taken.map(|result| result.unwrap_or_else(|| Err(anyhow::anyhow!("the host was not reached")))).collect()
    }

    /// A host of the fleet by its name or its instance id, or a drill's by its id.
    pub fn host(&self, name: &str) -> Result<Arc<SandboxHost>> {
        let drills = self.drills.lock().unwrap_or_else(PoisonError::into_inner);
        let of_fleet = self.hosts.iter().find(|h| h.id.as_str() == name || h.plan.name == name);
        of_fleet.or_else(|| drills.values().find(|h| h.id.as_str() == name)).cloned().with_context(|| {
            let known: Vec<String> = self.hosts.iter().map(|h| format!("{} ({})", h.plan.name, h.id)).collect();
            let drills: Vec<String> = drills.keys().map(|id| format!("{id} (drill)")).collect();
            format!("there is no host {name}; the hosts are {}", [known, drills].concat().join(", "))
        })
    }

    /// The passwords as they are now: those of a cluster may be others than at the start. `host` decides which cluster: the one
    /// whose addresses its client was given, else the fleet's.
    pub fn secrets_of(&self, host: &SandboxHost) -> Secrets {
        let configured = self.tokens.at(&host.region, &host.cloudhsm_servers());
        let pin = configured.or_else(|| self.tokens.cluster(&self.cluster)).map(|cluster| cluster.pin);
        let mut secrets = self.secrets.clone();
        if let Some((user, password)) = pin.as_deref().and_then(|pin| pin.split_once(':')) {
            (secrets.cloudhsm_user, secrets.cloudhsm_password) = (user.to_owned(), password.to_owned());
        }
        secrets
    }

    pub(crate) fn endpoints(&self, imds: &str) -> String {
        endpoints(&self.endpoint, imds)
    }

    pub(crate) fn binds(&self, region: &Region) -> Vec<(PathBuf, String)> {
        binds(&self.layout, region)
    }

    /// Ends every host.
    pub fn down(&self) {
        self.functions.down();
        let drills = self.drills.lock().unwrap_or_else(PoisonError::into_inner);
        for host in self.hosts.iter().chain(drills.values()) {
            host.namespace.kill();
        }
        let _ = fs::remove_file(self.layout.control());
        // Outside its namespace an ordinary user could not remove what belongs to the users of its hosts.
        if self.rights_are_borrowed {
            take_back(self.layout.dir());
        }
    }
}

/// Gives everything below `path` to root and opens directories to it.
fn take_back(path: &std::path::Path) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let _ = std::os::unix::fs::lchown(path, Some(0), Some(0));
    if meta.is_dir() {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(meta.permissions().mode() | 0o700));
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            take_back(&entry.path());
        }
    }
}

/// Text of a host's `/etc/tde2hsm/endpoints.toml`.
fn endpoints(services: &str, imds: &str) -> String {
    format!("imds = \"http://{imds}\"\nsecretsmanager = \"{services}\"\ns3 = \"{services}\"\n")
}

fn binds(layout: &Layout, region: &Region) -> Vec<(PathBuf, String)> {
    common_binds(layout.network(region), layout)
}

/// Makes the tokens of both HSMs with the users the secrets name.
fn make_tokens(layout: &Layout, region: &Region, cluster: &str, secrets: &Secrets, hsms: &[String]) -> Result<Tokens> {
    let hsms: Vec<&str> = hsms.iter().map(String::as_str).collect();
    let old = Token::create(&layout.hsm(TOKENS[0]), Vendor::OldHsm, &["old-1", "old-2"])?;
    old.set_user(&secrets.old_hsm_user, &secrets.old_hsm_password)?;
    let new = Token::create(&layout.hsm(TOKENS[1]), Vendor::CloudHsm, &hsms)?;
    new.set_user(&secrets.cloudhsm_user, &secrets.cloudhsm_password)?;
    let tokens = Tokens::new(layout);
    tokens.add(cluster, region, new, &secrets.new_pin());
    Ok(tokens)
}

impl Secrets {
    /// The old HSM's PIN as C_Login takes it.
    pub fn old_pin(&self) -> String {
        format!("{}:{}", self.old_hsm_user, self.old_hsm_password)
    }

    /// The CloudHSM crypto user's.
    pub fn new_pin(&self) -> String {
        format!("{}:{}", self.cloudhsm_user, self.cloudhsm_password)
    }

    /// For tests that do by hand what a product must not, and for the search for leaks: outside the fleet.
    fn keep(&self, layout: &Layout) -> Result<()> {
        let truth = layout.dir().join("truth");
        fs::create_dir_all(&truth)?;
        let values = serde_json::json!({
            "old-hsm": self.old_pin(),
            "cloudhsm": self.new_pin(),
            "software": self.software,
        });
        fs::write(truth.join("secrets.json"), values.to_string()).context("keeping the secrets' values")
    }

    fn draw(cloud: &Cloud) -> Self {
        let mut world = cloud.world();
        let mut word = |len| world.ids.text(b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789", len);
        Self {
            old_hsm_user: "oracle_tde".to_owned(),
            old_hsm_password: format!("Old-{}", word(16)),
            cloudhsm_user: "tde_cu".to_owned(),
            cloudhsm_password: format!("New-{}", word(16)),
            software: format!("Soft-{}", word(16)),
        }
    }
}

fn put_secrets(cloud: &Cloud, region: &Region, second: &Region, secrets: &Secrets) -> Result<BTreeMap<String, String>> {
    let values =
        [("tde/old-hsm", secrets.old_pin()), ("tde/cloudhsm-cu", secrets.new_pin()), ("tde/software", secrets.software.clone())];
    let now = cloud.clock.now();
    let mut arns = BTreeMap::new();
    let mut world = cloud.world();
    // Whoever made the account ready, so that nothing of it is counted as the operator's.
    let name = "setup".to_owned();
    world.grant(&name, vec!["secretsmanager:*".to_owned()]);
    let caller = Caller { principal: Principal::Function(name), arn: String::new(), user_id: String::new() };
    for (name, value) in values {
        let arn = world.add_secret(region, name, &value, now).map_err(|e| anyhow::anyhow!("{e}"))?;
        let body = serde_json::json!({"SecretId": arn, "AddReplicaRegions": [{"Region": second.as_str()}]});
        let operation = "ReplicateSecretToRegions";
        let request = Request { caller: &caller, region, service: Service::Secrets, operation, body: &body };
        world.call(&request, now).result.map_err(|e| anyhow::anyhow!("{e}"))?;
        arns.insert(name.to_owned(), arn);
    }
    Ok(arns)
}
