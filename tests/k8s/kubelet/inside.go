package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside is what a process needs to become a container.
type inside struct {
	Root, Hostname, Workdir string
	Binds                   []bind
	Command, Environment    []string
	User, Group             int
	Groups                  []int
	ReadOnly, Unprivileged  bool
	// Something else is the first process, see runBeside.
	Beside bool
}

// bind shows a file or a folder of this machine at another place.
type bind struct {
	From, To string
	Writable bool
}

// What every image has of this machine.
var system = []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/dev"}

func (c *container) inside() (*inside, error) {
	p := c.pod
	environment, err := c.environment()
	if err != nil {
		return nil, err
	}
	made := &inside{
		Root:        filepath.Join(p.k.folderOf(p.object), "root-"+c.spec.Name),
		Hostname:    p.object.Name,
		Workdir:     p.k.o.workdir,
		Environment: environment,
	}
	if c.spec.WorkingDir != "" {
		made.Workdir = c.spec.WorkingDir
	}
	command := strings.Fields(p.k.o.entrypoint)
	if len(c.spec.Command) > 0 {
		command = c.spec.Command
	}
	made.Command = expandAll(append(append([]string{}, command...), c.spec.Args...), environment)
	for _, folder := range system {
		made.Binds = append(made.Binds, bind{folder, folder, folder == "/dev"})
	}
	for _, row := range p.k.o.binds {
		from, to, both := strings.Cut(row, ":")
		if !both {
			to = from
		}
		made.Binds = append(made.Binds, bind{from, to, false})
	}
	hosts := filepath.Join(p.k.folderOf(p.object), "hosts")
	made.Binds = append(made.Binds, bind{hosts, "/etc/hosts", false})
	for _, mount := range c.spec.VolumeMounts {
		from := filepath.Join(p.volume(mount.Name), mount.SubPath)
		made.Binds = append(made.Binds, bind{from, mount.MountPath, !mount.ReadOnly})
	}
	c.identify(made)
	return made, os.MkdirAll(made.Root, 0o755)
}

// identify sets who the container is and what it may do.
func (c *container) identify(made *inside) {
	if s := c.pod.object.Spec.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			made.User = int(*s.RunAsUser)
		}
		if s.RunAsGroup != nil {
			made.Group = int(*s.RunAsGroup)
		}
		if s.FSGroup != nil {
			made.Groups = append(made.Groups, int(*s.FSGroup))
		}
	}
	if s := c.spec.SecurityContext; s != nil {
		made.ReadOnly = s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem
		made.Unprivileged = s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation
	}
	shared := c.pod.object.Spec.ShareProcessNamespace
	made.Beside = shared != nil && *shared
}

// becomeContainer turns this process, which has mounts of its own, into the container's.
func becomeContainer(text string) {
	var made inside
	err := json.Unmarshal([]byte(text), &made)
	if err == nil {
		err = made.enter()
	}
	fmt.Fprintln(os.Stderr, "cannot start the container:", err)
	os.Exit(128)
}

func (made *inside) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", made.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	for _, b := range made.Binds {
		if err := b.mount(made.Root); err != nil {
			return fmt.Errorf("%s: %w", b.To, err)
		}
	}
	proc := filepath.Join(made.Root, "proc")
	if err := os.MkdirAll(proc, 0o555); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	tmp := filepath.Join(made.Root, "tmp")
	if _, err := os.Stat(tmp); err != nil {
		if err := os.MkdirAll(tmp, 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	if made.ReadOnly {
		if err := unix.Mount("", made.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("read-only root: %w", err)
		}
	}
	if err := unix.Chroot(made.Root); err != nil {
		return err
	}
	if err := os.Chdir(made.Workdir); err != nil {
		return err
	}
	_ = unix.Sethostname([]byte(made.Hostname))
	return made.exec()
}

func (made *inside) exec() error {
	for _, row := range made.Environment {
		name, value, _ := strings.Cut(row, "=")
		_ = os.Setenv(name, value)
	}
	path, err := exec.LookPath(made.Command[0])
	if err != nil {
		return err
	}
	if made.Unprivileged {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if made.Beside {
		return made.runBeside(path)
	}
	if err := syscall.Setgroups(made.Groups); err != nil {
		return err
	}
	if err := syscall.Setgid(made.Group); err != nil {
		return err
	}
	if err := syscall.Setuid(made.User); err != nil {
		return err
	}
	// What the kubelet listens to, see launch.
	unix.CloseOnExec(3)
	// Lost when the user changed: a node that dies takes its containers along.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec(path, made.Command, made.Environment)
}

func (b bind) mount(root string) error {
	from, err := os.Stat(b.From)
	if os.IsNotExist(err) && (b.From == "/lib64" || b.From == "/sbin") {
		return nil
	}
	if err != nil {
		return err
	}
	to := filepath.Join(root, b.To)
	if from.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else if _, gone := os.Stat(to); gone != nil {
		if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = os.WriteFile(to, nil, 0o644)
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(b.From, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if b.Writable {
		return nil
	}
	return unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// volume is the folder that a volume of the pod lies in.
func (p *pod) volume(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if folder, is := p.folders[name]; is {
		return folder
	}
	return filepath.Join(p.k.folderOf(p.object), "volumes", name)
}
