package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// StorageClass is the default one of a lab with a real node.
	StorageClass = "lab"
	// volumes is how many volumes there are. Each is for one claim, as long as the
	// lab: nobody makes volumes here, or empties them.
	volumes    = 16
	volumeSize = "10Gi" // what claims are told; it is the disk of this machine
)

// makeVolumes gives the node volumes, folders of the lab's, and a default storage
// class to claim them by. They are of the kind "local", to which the kubelet lets
// a pod's group write.
func (l *Lab) makeVolumes(ctx context.Context, node string) error {
	noMore, whenUsed := corev1.PersistentVolumeReclaimRetain, storagev1.VolumeBindingWaitForFirstConsumer
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: StorageClass, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner: "kubernetes.io/no-provisioner", ReclaimPolicy: &noMore, VolumeBindingMode: &whenUsed,
	}
	if _, err := l.client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	for i := range volumes {
		folder := filepath.Join(l.dir, VolumeFolder, fmt.Sprint(i))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		volume := &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("lab-%d", i)},
			Spec: corev1.PersistentVolumeSpec{
				Capacity:         corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(volumeSize)},
				AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				StorageClassName: StorageClass, PersistentVolumeReclaimPolicy: noMore,
				PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: folder}},
				NodeAffinity:           onNode(node),
			},
		}
		if _, err := l.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

func onNode(name string) *corev1.VolumeNodeAffinity {
	is := corev1.NodeSelectorRequirement{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}
	term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{is}}
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}}
}
