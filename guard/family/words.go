package family

import "strings"

// fixed are words that look made up and are not: abbreviations with digits, and words
// of the letters that Kubernetes makes names up from.
var fixed = set(`
	a11y c10n c3po d3js e2ee g11n h264 h265 i18n k3os k8gb k8up l10n n8n o11y p12n r2d2 s3fs s3ql x264 x265
	amd64 arm64 armv7 armv8 arm32v7 arm64v8 i386 i686 s390x ppc64 ppc64le mips64 mips64le riscv64 x86 aarch64 win32 win64
	base32 base58 base64 ascii85 utf8 utf16 utf8mb3 utf8mb4 latin1 md5sum sha1 sha256 sha384 sha512 sha256sum sha512sum
	ed25519 secp256k1 x25519 x509 rsa2048 rsa4096 aes128 aes256 rfc3339 rfc1123 rfc1035 iso8601 pkcs11 pkcs12 crc32 xxh64
	ipv4 ipv6 ip6tables ip4tables http2 http3 https2 h2c oauth2 openid2 saml2 tls12 tls13 grpc2 socks4 socks5 pop3s nfsv3 nfsv4 cgroupv1 cgroupv2
	log4j log4j2 neo4j db4o web3js three3d vue2 vue3 es2015 es2020 lz4hc bzip2 mp4box krb5kdc krb5 l2tpd ext4fs
	v1alpha1 v1alpha2 v1alpha3 v1beta1 v1beta2 v1beta3 v2alpha1 v2beta1 v2beta2 v3alpha1 v1beta4 v1alpha4
	https httpd httpx grpcs cfssl dhcpd sshfs smtps btrfs pgsql mssql lldpd snmpd tftpd lxcfs zfspv dbctl wgctl vtctld vtctl
	php56 php72 php73 php74 php82 php83 php84 7z fcntl nfsd4 rtmps xmpps pgbkp cgrps ctrls clstr plnts strts tmpls scrpt xfstt ntpdc rpcss sstps hdfs2 gcsfs ldlms
	postgres9 kubernetes`)

// numbered are words in front of a number of one or two digits that make eight
// letters and digits together: as many as random release names have.
var numbered = set(`
	python debian ubuntu alpine fedora centos openjdk golang nodejs elastic mariadb mongodb cockroach
	server worker master backup broker replica primary standby cluster gateway storage compute ingress control
	portal client source target mirror legacy consul grafana jenkins traefik airflow varnish webapp webhook
	region subnet secret public shared common docker harbor runner sensor device router switch egress memory
	search kibana cassan solr eventd logger mailer proxy parser player volume bucket bridge branch engine
	loader tenant window system option config person member policy proxies sandbox preview staging service
	testing example default jobrunner varnish restbase parsoid swiftfe thanos wikitech cloudvirt`)

// abbreviations are what may stand in front of a word without a separator.
var abbreviations = [...]string{"k8s", "k3s", "s3", "ec2", "i18n", "l10n", "e2e", "h2", "x509", "ipv4", "ipv6", "http2", "oauth2", "base64", "utf8",
	"md5", "sha1", "sha256", "b2b", "p2p", "l2", "l3", "l4", "l7", "k8", "r2", "b2", "gp2", "gp3", "web3"}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}
