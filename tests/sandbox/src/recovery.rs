//! What a recovery does to the real things: content of snapshots and backups, clusters that are restored, hosts that are made
//! of images.

use crate::agent::Agent;
use crate::ebs::{Content, Volume};
use crate::fleet::HostPlan;
use crate::host::{InitArgs, Mount, Namespace};
use crate::imds::{Identity, Imds};
use crate::layout::Layout;
use crate::sandbox::{AGENT_VERSION, Sandbox, SandboxHost};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use tde2hsm_model::ssm::Node;
use tde2hsm_model::{Effect, InstanceId, LaunchedVolume, Region};

/// What became of a host that a drill made.
#[derive(Debug, Clone)]
pub struct Launch {
    pub region: Region,
    /// The host of the fleet whose volumes these once were.
    pub source: Option<InstanceId>,
    /// Why it did not come up.
    pub failed: Option<String>,
}

impl Sandbox {
    /// Carries out what the world wants, oldest first. One caller at a time, so that the order is the world's.
    pub fn carry(self: &Arc<Self>) {
        let _one = self.carrying.lock().unwrap_or_else(PoisonError::into_inner);
        let effects = self.cloud.world().take_effects();
        // Volumes of one instance whose snapshots one call took are one moment.
        let mut sets: BTreeMap<InstanceId, Vec<(String, String)>> = BTreeMap::new();
        for effect in &effects {
            if let Effect::SnapshotTaken { snapshot, instance: Some(instance), volume, .. } = effect {
                sets.entry(instance.clone()).or_default().push((snapshot.clone(), volume.clone()));
            }
        }
        for (instance, volumes) in sets {
            let host = self.host(instance.as_str()).ok();
            let freeze = host.as_ref().and_then(|host| Frozen::of(&host.namespace));
            for (snapshot, volume) in volumes {
                let live = host.as_ref().zip(self.ebs.volume(&volume)).map(|(host, v)| host.namespace.outside(&v.target));
                let taken = self.taken(&snapshot);
                note(&format!("snapshot {snapshot}"), self.ebs.take(&snapshot, &volume, &taken, live.as_deref()));
            }
            drop(freeze);
        }
        for effect in effects {
            self.effect(effect);
        }
    }

    /// A snapshot's StartTime.
    fn taken(&self, snapshot: &str) -> String {
        let world = self.cloud.world();
        let found = world.regions().find_map(|r| world.region(r)?.ec2.snapshots.get(snapshot));
        found.map(|s| s.started.iso()).unwrap_or_default()
    }

    fn effect(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Deliver { instance, command, document, parameters, .. } => {
                if let Ok(host) = self.host(instance.as_str()) {
                    tokio::spawn(host.agent.clone().deliver(command, document, parameters));
                }
            }
            Effect::Cancel { instance, command, .. } => {
                if let Ok(host) = self.host(instance.as_str()) {
                    host.agent.cancel(&command);
                }
            }
            Effect::HsmsChanged { region, cluster } => {
                note(&format!("the HSMs of {cluster}"), self.hsms_changed(&region, &cluster))
            }
            Effect::SnapshotTaken { instance: Some(_), .. } => {}
            Effect::SnapshotTaken { snapshot, volume, .. } => {
                note(&format!("snapshot {snapshot}"), self.ebs.take(&snapshot, &volume, &self.taken(&snapshot), None));
            }
            Effect::SnapshotCopied { source, snapshot, .. } => {
                note(&format!("copy {snapshot}"), self.ebs.copied(&source, &snapshot));
            }
            Effect::SnapshotDeleted { snapshot, .. } => self.ebs.deleted(&snapshot),
            Effect::BackupTaken { cluster, backup, .. } => {
                note(&format!("backup {backup}"), self.tokens.back_up(&cluster, &backup))
            }
            Effect::BackupCopied { source, backup, .. } => note(&format!("copy {backup}"), self.tokens.copied(&source, &backup)),
            Effect::BackupGone { backup, .. } => self.tokens.backup_gone(&backup),
            Effect::ClusterRestored { region, cluster, backup } => {
                note(&format!("cluster {cluster}"), self.tokens.restore(&region, &cluster, &backup));
            }
            Effect::ClusterGone { cluster, .. } => self.tokens.cluster_gone(&cluster),
            Effect::InstanceLaunched { region, instance, volumes, image } => self.launched(&region, &instance, &image, &volumes),
            Effect::InstanceTerminated { instance, .. } => self.terminated(&instance),
            // The model keeps what was published.
            Effect::Event { region, detail } => self.functions.event(self, &region, detail),
        }
    }

    pub(crate) fn hsms_changed(&self, region: &Region, cluster: &str) -> Result<()> {
        let (hsms, addresses) = {
            let world = self.cloud.world();
            let hsm = world.region(region).map(|r| &r.hsm);
            hsm.map(|hsm| (hsm.hsms(cluster), hsm.active_hsms(cluster))).unwrap_or_default()
        };
        self.tokens.set_hsms(cluster, &hsms, addresses)
    }

    /// The host of the fleet whose files an instance has: its own, or those it was made from.
    pub fn source_of(&self, instance: &InstanceId) -> InstanceId {
        let launches = self.launches.lock().unwrap_or_else(PoisonError::into_inner);
        launches.get(instance).and_then(|launch| launch.source.clone()).unwrap_or_else(|| instance.clone())
    }

    /// Attaches another volume to a host and mounts it, with a reboot. It is Oracle's.
    pub fn attach_volume(&self, host: &SandboxHost, target: &str) -> Result<()> {
        let number = host.namespace.init().devices.len();
        let (device, name) = (format!("nvme{number}n1"), format!("/dev/xvd{}", char::from(b'e' + u8::try_from(number)?)));
        let home = host.namespace.root().parent().context("a host has a directory")?.to_owned();
        let upper = home.join(&device);
        fs::create_dir_all(&upper)?;
        crate::host::rootfs::own(&upper, self.users.oracle, self.users.oinstall)?;
        let id = {
            let mut world = self.cloud.world();
            let id = format!("vol-{}", world.ids.hex(17));
            let now = self.cloud.clock.now();
            if let Some(state) = world.region_mut(&host.region) {
                state.ec2.attach_volume(&host.id, &name, &id, 20, &self.volumes_key, now);
            }
            id
        };
        let mount = Mount {
            source: format!("/dev/{device}"),
            target: target.to_owned(),
            lower: Vec::new(),
            upper: upper.clone(),
            work: home.join("work").join(&device),
        };
        let record = Volume { instance: host.id.clone(), target: target.to_owned(), upper: upper.clone(), lower: Vec::new() };
        self.ebs.add(&id, record);
        host.namespace.kill();
        host.namespace.add_volume(mount, &device, &id);
        host.namespace.start()?;
        boot(&host.namespace);
        Ok(())
    }

    fn launched(self: &Arc<Self>, region: &Region, instance: &InstanceId, image: &str, volumes: &[LaunchedVolume]) {
        let result = self.launch(region, instance, image, volumes);
        let mut launch = Launch { region: region.clone(), source: None, failed: None };
        match result {
            Ok(source) => launch.source = Some(source),
            Err(why) => {
                tracing::warn!("{instance} does not come up: {why:#}");
                launch.failed = Some(format!("{why:#}"));
            }
        }
        self.launches.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.clone(), launch);
    }

    /// Boots an instance from the content of snapshots: another host with the source's files, its own identity, and the
    /// network of its own region (H44). Returns whose files these once were.
    fn launch(
        self: &Arc<Self>,
        region: &Region,
        instance: &InstanceId,
        image: &str,
        volumes: &[LaunchedVolume],
    ) -> Result<InstanceId> {
        let about = {
            let world = self.cloud.world();
            world.region(region).and_then(|r| r.ec2.instance(instance)).cloned().context("EC2 does not know it")?
        };
        let contents: Vec<(&LaunchedVolume, Content)> =
            volumes.iter().filter_map(|v| Some((v, self.ebs.content(&v.snapshot)?))).collect();
        let (_, root) = contents.iter().find(|(_, c)| c.target == "/").context("no volume holds a root file system")?;
        let source = self.source_of(&root.instance);
        let plan = self
            .host(source.as_str())
            .map(|host| host.plan.clone())
            .unwrap_or(HostPlan { name: String::new(), databases: vec![] });
        let dir = self.layout.drills().join(instance.as_str());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ip = text(&about["privateIpAddress"]);
        let name = format!("ip-{}", ip.replace('.', "-"));

        let (mut mounts, mut devices, mut others) = (Vec::new(), Vec::new(), 0);
        // The root first: the others are mounted below it.
        let (roots, rest): (Vec<_>, Vec<_>) = contents.iter().partition(|(_, c)| c.target == "/");
        for (volume, content) in roots.into_iter().take(1).chain(rest) {
            let (device, source) = if content.target == "/" {
                ("nvme0n1".to_owned(), "/dev/nvme0n1p1".to_owned())
            } else {
                others += 1;
                (format!("nvme{others}n1"), format!("/dev/nvme{others}n1"))
            };
            let upper = if content.target == "/" { dir.join("root") } else { dir.join(&device) };
            // An ordinary user's overlay cannot rename a directory that comes from below, as any other file system can.
            let lower = if crate::userns::is_borrowed() { Vec::new() } else { vec![content.tree.clone()] };
            if lower.is_empty() {
                self.ebs.lay_out(&content.tree, &upper)?;
            }
            let mount = Mount {
                source,
                target: content.target.clone(),
                lower,
                work: dir.join("work").join(&device),
                upper: upper.clone(),
            };
            let record = Volume { instance: instance.clone(), target: content.target.clone(), upper, lower: mount.lower.clone() };
            // A volume's root directory has the owner it had.
            fs::create_dir_all(&mount.upper)?;
            crate::ebs::same_owner(&fs::metadata(&content.tree)?, &mount.upper)?;
            self.ebs.add(&volume.volume, record);
            mounts.push(mount);
            devices.push((device, volume.volume.clone()));
        }

        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("opening a metadata port")?;
        listener.set_nonblocking(true)?;
        let endpoints = self.endpoints(&listener.local_addr()?.to_string());
        // A drill's subnet leads nowhere: to its metadata, and to the services as the region's endpoints.
        let services = self.endpoint.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok());
        let closed = Some(services.into_iter().chain([listener.local_addr()?.port()]).collect());
        first_boot(&dir.join("root"), &name, &ip, &endpoints)?;
        let init =
            InitArgs { root: dir.join("root"), hostname: name.clone(), binds: self.binds(region), mounts, devices, closed };
        let namespace = Arc::new(Namespace::new(&self.program, &init));
        let role = text(&about["iamInstanceProfile"]["arn"]).rsplit('/').next().unwrap_or_default().to_owned();
        let now = self.cloud.clock.now();
        let identity = Identity {
            instance: instance.clone(),
            region: region.clone(),
            zone: text(&about["placement"]["availabilityZone"]),
            kind: text(&about["instanceType"]),
            image: image.to_owned(),
            private_ip: ip.clone(),
            role: role.clone(),
            launched: now,
        };
        tokio::spawn(Imds::new(self.cloud.clone(), identity).serve(tokio::net::TcpListener::from_std(listener)?));
        self.cloud.confine(instance, region);
        match crate::functions::profile(self, &self.templates, &role) {
            Ok(Some(statements)) => drop(self.cloud.policies().insert(instance.to_string(), statements)),
            Ok(None) => {}
            Err(why) => tracing::warn!("the role of {instance} is not the template's: {why:#}"),
        }
        namespace.start()?;
        let agent = Agent::new(self.cloud.clone(), namespace.clone(), region.clone(), instance.clone());
        let host = Arc::new(SandboxHost { id: instance.clone(), region: region.clone(), plan, namespace, agent });
        self.drills.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.clone(), host.clone());
        // Not here: what it starts may call a service, whose answer waits for the effects that are being carried out.
        let booting = host.clone();
        std::thread::spawn(move || boot(&booting.namespace));
        // Without a role the agent has nothing to register with.
        if !role.is_empty()
            && let Some(state) = self.cloud.world().region_mut(region)
        {
            state.ssm.register(Node {
                instance: instance.clone(),
                agent_version: AGENT_VERSION.to_owned(),
                online: true,
                undeliverable: false,
                platform_name: "Red Hat Enterprise Linux".to_owned(),
                platform_version: "8.10".to_owned(),
                computer_name: name,
                ip,
                role,
                registered: now,
                last_ping: now,
            });
        }
        Ok(source)
    }

    fn terminated(&self, instance: &InstanceId) {
        let host = self.drills.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
        if let Some(host) = host {
            if let Some(node) = self.cloud.world().region_mut(&host.region).and_then(|r| r.ssm.node_mut(instance)) {
                node.online = false;
            }
            host.namespace.kill();
            let _ = fs::remove_dir_all(self.layout.drills().join(instance.as_str()));
        }
    }
}

fn note(what: &str, done: Result<()>) {
    if let Err(why) = done {
        tracing::warn!("{what}: {why:#}");
    }
}

/// What changes when an image becomes another instance: its name, and where it finds its metadata.
fn first_boot(root: &Path, name: &str, ip: &str, endpoints: &str) -> Result<()> {
    for (file, text) in [
        ("etc/hostname", format!("{name}\n")),
        ("etc/hosts", format!("127.0.0.1 localhost\n{ip} {name}\n")),
        ("etc/tde2hsm/endpoints.toml", endpoints.to_owned()),
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Starts what the host starts by itself: the enabled units of `/etc/systemd/system`. A fleet's host has none unless someone
/// put one there.
pub fn boot(namespace: &Namespace) {
    let wants = namespace.outside("/etc/systemd/system/multi-user.target.wants");
    let mut units: Vec<String> = fs::read_dir(wants)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".service"))
        .collect();
    units.sort();
    for unit in units {
        let file = namespace.outside(&format!("/etc/systemd/system/{unit}"));
        // A mask is a link to /dev/null.
        let Ok(text) = fs::symlink_metadata(&file)
            .map_err(drop)
            .and_then(|meta| if meta.is_file() { fs::read_to_string(&file).map_err(drop) } else { Err(()) })
        else {
            continue;
        };
        let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('=').map(str::trim));
        let Some(start) = value("ExecStart") else { continue };
        let words: Vec<String> = match value("User") {
            Some(user) if user != "root" => {
                let become_it = r#"exec setpriv --reuid "$0" --regid "$(id -g "$0")" --init-groups sh -c "$1""#;
                ["sh", "-c", become_it, user, start].map(str::to_owned).into()
            }
            _ => ["sh", "-c", start].map(str::to_owned).into(),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match namespace.command(&words).map(|mut command| command.output()) {
            Ok(Ok(output)) if output.status.success() => {}
            other => tracing::debug!(?other, unit, "a unit did not start"),
        }
    }
}

/// Every process of a host stands still while this lives.
struct Frozen<'a>(&'a Namespace);

impl<'a> Frozen<'a> {
    fn of(namespace: &'a Namespace) -> Option<Self> {
        signal_all(namespace, Signal::SIGSTOP)?;
        Some(Self(namespace))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = signal_all(self.0, Signal::SIGCONT);
    }
}

/// Signals every process of the host but its first and the one that does it.
fn signal_all(namespace: &Namespace, signal: Signal) -> Option<()> {
    let number = (signal as i32).to_string();
    // A shell's own `kill`: another program would be one of the processes.
    let line = format!("kill -{number} -1");
    let status = namespace.command(&["sh", "-c", &line]).ok()?.status().ok()?;
    status.success().then_some(())
}

/// What every host sees of the machine: the network to its region's HSMs, and the world's clock.
pub(crate) fn common_binds(network: PathBuf, layout: &Layout) -> Vec<(PathBuf, String)> {
    vec![
        (network, "/run/hsm".to_owned()),
        (layout.clock(), "/run/sandbox/clock".to_owned()),
        (layout.clock_library(), CLOCK_LIBRARY.to_owned()),
    ]
}

/// Where a host has the library that tells the world's time, as its `/etc/ld.so.preload` says.
pub const CLOCK_LIBRARY: &str = "/run/sandbox/libsandbox_clock.so";
